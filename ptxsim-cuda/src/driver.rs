//! The driver of a process: its cards, and what programs hold handles of. One lock for the handles; no lock is held
//! while work runs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use ptxsim::{Device, DeviceConfig, Module};

use crate::code::{self, Code, Fail, fail};
use crate::memory::{Block, Host, Pool};
use crate::options::Options;
use crate::order::Stream;
use crate::report::Tally;

/// Device addresses of card n begin at `FIRST + n * SPAN`: no card's pointer is another's.
pub(crate) const FIRST: u64 = 0x2000_0000_0000;
pub(crate) const SPAN: u64 = 0x0200_0000_0000;

/// What a handle is of. The kind is part of its value, and no value is given twice, so a dead handle is told from a wrong
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Library,
    Kernel,
    Pool,
}

impl Kind {
    fn of(handle: u64) -> Option<Kind> {
        use Kind::*;
        let kinds = [Context, Stream, Event, Module, Function, Library, Kernel, Pool];
        (handle >> 44 == 5)
            .then(|| handle >> 36 & 0xff)?
            .checked_sub(1)
            .and_then(|at| kinds.get(at as usize).copied())
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Context => "context",
            Kind::Stream => "stream",
            Kind::Event => "event",
            Kind::Module => "module",
            Kind::Function => "function",
            Kind::Library => "library",
            Kind::Kernel => "kernel",
            Kind::Pool => "memory pool",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub options: Options,
    pub cards: Vec<Device>,
    /// Held by the launch that has host memory on its card, for each card.
    pub shared: Vec<Mutex<()>>,
    pub state: Mutex<State>,
    /// Told whenever a piece of work has run.
    pub changed: Condvar,
}

#[derive(Debug)]
pub(crate) struct Context {
    pub card: usize,
    pub primary: bool,
    pub flags: u32,
    pub api_version: u32,
    /// A fault of its work: every later call returns it.
    pub fault: Option<Code>,
    /// The stream behind the handles 0 and 1.
    pub null: u64,
    /// The streams behind the handle 2.
    pub per_thread: HashMap<ThreadId, u64>,
    pub limits: HashMap<u32, usize>,
    pub peers: HashSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Primary {
    /// Its handle, the same for the whole run; 0 before the first use.
    pub handle: u64,
    pub count: u64,
    pub flags: u32,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub context: u64,
    pub timed: bool,
    /// The stream and the position in it; none while never recorded.
    pub at: Option<(u64, u64)>,
    /// When it ran, in nanoseconds of the model.
    pub time: Option<f64>,
    /// Queries that were answered with "not ready".
    pub asked: u32,
}

#[derive(Debug)]
pub(crate) struct Loaded {
    pub context: u64,
    pub module: Arc<Module>,
    /// The library it is of, if any.
    pub library: u64,
    pub functions: HashMap<String, u64>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub context: u64,
    pub module_handle: u64,
    pub module: Arc<Module>,
    pub entry: Arc<ptxsim::Entry>,
    pub name: Arc<CString>,
    /// What `cuFuncSetAttribute` set, by attribute.
    pub set: HashMap<u32, i32>,
}

#[derive(Debug)]
pub(crate) struct Library {
    pub module: Arc<Module>,
    /// Its module in each context where something of it was asked for.
    pub modules: HashMap<u64, u64>,
    pub kernels: HashMap<String, u64>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub library: u64,
    pub entry: Arc<ptxsim::Entry>,
    pub name: Arc<CString>,
    pub set: HashMap<u32, i32>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    made: u64,
    pub contexts: HashMap<u64, Context>,
    pub primaries: Vec<Primary>,
    pub streams: HashMap<u64, Stream>,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Loaded>,
    pub functions: HashMap<u64, Function>,
    pub libraries: HashMap<u64, Library>,
    pub kernels: HashMap<u64, Kernel>,
    pub pools: HashMap<u64, Pool>,
    /// Handles that ended with their context.
    pub orphans: HashSet<u64>,
    /// Device memory by its first address.
    pub memory: BTreeMap<u64, Block>,
    /// Freed memory, for messages: first address, bytes, what it was.
    pub freed: BTreeMap<u64, (u64, String)>,
    /// Page-locked host memory by its first address.
    pub host: BTreeMap<usize, Host>,
    pub allocations: u64,
    pub launches: u64,
    /// Host functions that have run.
    pub callbacks: u64,
    /// The host's time in nanoseconds of the model: the end of all that it waited for.
    pub now: f64,
    /// Bytes of each card that are promised to work that has not run.
    pub promised: Vec<u64>,
    /// Each card's pool, and the one in use.
    pub default_pools: HashMap<usize, (u64, u64)>,
    pub tally: Tally,
}

static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
static STARTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
    static OWN_STREAM: Cell<bool> = const { Cell::new(false) };
}

/// The driver, made at the first need.
pub(crate) fn driver() -> Result<&'static Driver, Fail> {
    let made = DRIVER.get_or_init(|| Options::from_env().map(Driver::new));
    made.as_ref().map_err(|said| fail(code::INVALID_VALUE, said.clone()))
}

/// The driver if something asked for it before.
pub(crate) fn driver_if_made() -> Option<&'static Driver> {
    DRIVER.get().and_then(|made| made.as_ref().ok())
}

/// What `cuInit` does.
pub(crate) fn start() -> Result<(), Fail> {
    let driver = driver()?;
    if driver.cards.is_empty() {
        return Err(code::NO_DEVICE.into());
    }
    if !STARTED.swap(true, Ordering::SeqCst) {
        crate::report::at_exit();
    }
    Ok(())
}

/// The contexts of this thread, the current one last.
pub(crate) fn with_stack<T>(f: impl FnOnce(&mut Vec<u64>) -> T) -> Result<T, Fail> {
    // Gone when the thread ends: what drops then finds no current context.
    STACK.try_with(|stack| f(&mut stack.borrow_mut())).map_err(|_| code::DEINITIALIZED.into())
}

/// Runs a program's function on this thread, from which no call of the driver is permitted.
pub(crate) fn as_callback(f: impl FnOnce()) {
    let set = |to| IN_CALLBACK.try_with(|flag| flag.replace(to)).unwrap_or_default();
    let before = set(true);
    f();
    set(before);
}

/// Runs a call in which the null stream is the thread's own.
pub(crate) fn with_own_stream(f: impl FnOnce() -> u32) -> u32 {
    let set = |to| OWN_STREAM.try_with(|flag| flag.replace(to)).unwrap_or_default();
    let before = set(true);
    let code = f();
    set(before);
    code
}

/// Whether this call is such a one.
pub(crate) fn own_stream() -> bool {
    OWN_STREAM.try_with(Cell::get).unwrap_or_default()
}

impl Driver {
    fn new(options: Options) -> Driver {
        let mut config = DeviceConfig::new(options.compute_capability);
        config.memory_bytes = options.memory_bytes;
        let card = |at: usize| {
            let first = FIRST + at as u64 * SPAN;
            Device::with_addresses(config.clone(), first, first + SPAN)
        };
        let cards: Vec<_> = (0..options.devices).map(card).collect();
        let state = State {
            primaries: cards.iter().map(|_| Primary::default()).collect(),
            promised: vec![0; cards.len()],
            ..State::default()
        };
        let shared = cards.iter().map(|_| Mutex::default()).collect();
        Driver { options, cards, shared, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the maps whole: work is taken off before it runs, outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A card by its number.
    pub fn card(&self, ordinal: i32) -> Result<usize, Fail> {
        let at = usize::try_from(ordinal).ok().filter(|&at| at < self.cards.len());
        at.ok_or_else(|| {
            let count = self.cards.len();
            fail(
                code::INVALID_DEVICE,
                format!("no card {ordinal}: there are {count}, numbered from 0"),
            )
        })
    }
}

impl State {
    /// A new handle.
    pub fn handle(&mut self, kind: Kind) -> u64 {
        self.made += 1;
        5 << 44 | (kind as u64) << 36 | self.made << 4
    }

    /// Why a handle is not in the map of its kind.
    pub fn no(&self, kind: Kind, handle: u64) -> Fail {
        let name = kind.name();
        if handle == 0 {
            return fail(code::INVALID_HANDLE, format!("the {name} is null"));
        }
        let serial = handle >> 4 & 0xffff_ffff;
        match Kind::of(handle) {
            Some(found) if found == kind && self.orphans.contains(&handle) => fail(
                code::CONTEXT_IS_DESTROYED,
                format!("{name} {handle:#x} ended with its context"),
            ),
            Some(found) if found == kind && (1..=self.made).contains(&serial) => {
                fail(code::INVALID_HANDLE, format!("{name} {handle:#x} was destroyed before"))
            }
            Some(found) if found != kind => fail(
                code::INVALID_HANDLE,
                format!("{handle:#x} is a {}, not a {name}", found.name()),
            ),
            _ => fail(code::INVALID_HANDLE, format!("{handle:#x} is no {name} of this driver")),
        }
    }
}

/// A call that is under way: the lock, which is let go while work runs.
pub(crate) struct Session {
    pub driver: &'static Driver,
    state: Option<MutexGuard<'static, State>>,
}

impl Deref for Session {
    type Target = State;

    fn deref(&self) -> &State {
        // Taken only inside `unlocked` and `wait`, which put it back and hand `self` to nobody meanwhile.
        self.state.as_ref().expect("the lock is held")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("the lock is held")
    }
}

impl Session {
    /// # Errors
    /// Before `cuInit`, and inside a host function.
    pub fn open() -> Result<Session, Fail> {
        if !STARTED.load(Ordering::SeqCst) {
            return Err(fail(code::NOT_INITIALIZED, "cuInit was not called"));
        }
        if IN_CALLBACK.try_with(Cell::get).unwrap_or_default() {
            return Err(fail(code::NOT_PERMITTED, "a host function calls the driver"));
        }
        Session::always()
    }

    /// As [`open`](Session::open), wherever it is called from.
    pub fn always() -> Result<Session, Fail> {
        let driver = driver()?;
        Ok(Session { driver, state: Some(driver.lock()) })
    }

    /// Runs something with no lock held.
    pub fn unlocked<T>(&mut self, f: impl FnOnce(&'static Driver) -> T) -> T {
        self.state = None;
        let done = f(self.driver);
        self.state = Some(self.driver.lock());
        done
    }

    /// Waits until another thread has run something.
    pub fn wait(&mut self) {
        if let Some(held) = self.state.take() {
            let held = self.driver.changed.wait(held);
            self.state = Some(held.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The handle of the current context, which lives and is without fault.
    pub fn current(&self) -> Result<u64, Fail> {
        let context = self.current_or_null()?;
        if context == 0 {
            return Err(fail(code::INVALID_CONTEXT, "this thread has no current context"));
        }
        self.healthy(context)?;
        Ok(context)
    }

    /// The handle of the current context, or 0.
    pub fn current_or_null(&self) -> Result<u64, Fail> {
        with_stack(|stack| stack.last().copied().unwrap_or(0))
    }

    /// A context by its handle.
    pub fn context(&self, handle: u64) -> Result<&Context, Fail> {
        self.contexts.get(&handle).ok_or_else(|| {
            let why = self.no(Kind::Context, handle);
            match &why.said {
                Some(said) if said.ends_with("before") => {
                    fail(code::CONTEXT_IS_DESTROYED, format!("context {handle:#x} is destroyed"))
                }
                Some(said) => fail(code::INVALID_CONTEXT, said.clone()),
                None => why,
            }
        })
    }

    /// Errors with the fault of the context, when it has one.
    pub fn healthy(&self, handle: u64) -> Result<(), Fail> {
        match self.context(handle)?.fault {
            // It was told when it happened.
            Some(code) => Err(code.into()),
            None => Ok(()),
        }
    }

    /// The card of the current context, with the context.
    pub fn current_card(&self) -> Result<(u64, usize), Fail> {
        let context = self.current()?;
        Ok((context, self.context(context)?.card))
    }

    /// A new context on a card.
    pub fn make_context(
        &mut self,
        handle: u64,
        card: usize,
        primary: bool,
        flags: u32,
        api_version: u32,
    ) {
        let null = self.handle(Kind::Stream);
        self.streams.insert(null, Stream::null(handle));
        let context = Context {
            card,
            primary,
            flags,
            api_version,
            fault: None,
            null,
            per_thread: HashMap::new(),
            limits: HashMap::new(),
            peers: HashSet::new(),
        };
        self.contexts.insert(handle, context);
    }

    /// Ends a context and what it owns: its work is run first, what is still allocated is told.
    pub fn end_context(&mut self, handle: u64) {
        self.drain(handle);
        let Some(context) = self.contexts.remove(&handle) else { return };
        crate::report::leaks(self, handle, &context);
        let state = &mut **self;
        let mut ended = Vec::new();
        state.streams.retain(|&at, stream| {
            stream.context != handle || {
                ended.push(at);
                false
            }
        });
        state.events.retain(|&at, event| {
            event.context != handle || {
                ended.push(at);
                false
            }
        });
        state.functions.retain(|&at, function| {
            function.context != handle || {
                ended.push(at);
                false
            }
        });
        let mut unloaded = Vec::new();
        state.modules.retain(|&at, loaded| {
            loaded.context != handle || {
                ended.push(at);
                unloaded.push(Arc::clone(&loaded.module));
                false
            }
        });
        state.libraries.values_mut().for_each(|library| {
            library.modules.remove(&handle);
        });
        state.orphans.extend(ended);
        let blocks: Vec<u64> =
            state.memory.iter().filter(|(_, b)| b.context == handle).map(|(&at, _)| at).collect();
        for at in blocks {
            self.release(at);
        }
        let hosts: Vec<usize> =
            self.host.iter().filter(|(_, h)| h.context == handle).map(|(&at, _)| at).collect();
        for at in hosts {
            self.release_host(at);
        }
        for module in unloaded {
            self.driver.cards[context.card].unload(&module);
        }
    }

    /// A module's variables are of the context it was loaded in; each load is a module of its own.
    pub fn loaded(&self, handle: u64) -> Result<&Loaded, Fail> {
        self.modules.get(&handle).ok_or_else(|| self.no(Kind::Module, handle))
    }
}
