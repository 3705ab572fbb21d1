//! Functions: their attributes and launches.

use std::sync::Arc;

use ptxsim::{Arg, Entry, LaunchConfig, SHARED_BYTES_WITHOUT_OPT_IN};

use super::unless;
use crate::code::{self, Fail, fail};
use crate::driver::Session;
use crate::raw::{self, HostAddress, In, Out};
use crate::work::{Launch, Work};

/// Attributes of a function, by their numbers (`CUfunction_attribute`).
pub(super) const MAX_DYNAMIC_SHARED: u32 = 8;
const CARVEOUT: u32 = 9;
/// Registers of a thread: the simulator has no registers to count, and says of every kernel the same.
pub(super) const REGISTERS: i32 = 32;

/// What is said of an entry.
pub(super) fn attribute(
    session: &Session,
    entry: &Entry,
    set: &std::collections::HashMap<u32, i32>,
    target: u32,
    which: u32,
) -> Option<i32> {
    let options = &session.driver.options;
    Some(match which {
        0 => entry.max_threads.map_or(1024, |sides| sides.iter().product::<u32>().min(1024) as i32),
        1 => entry.static_shared_bytes as i32,
        2 => 0,
        3 => entry.local_bytes as i32,
        4 => REGISTERS,
        5 => target as i32,
        6 => options.compute_capability as i32,
        7 => 0,
        MAX_DYNAMIC_SHARED => {
            let unasked = (SHARED_BYTES_WITHOUT_OPT_IN
                - entry.static_shared_bytes.min(SHARED_BYTES_WITHOUT_OPT_IN))
                as i32;
            set.get(&which).copied().unwrap_or(unasked)
        }
        CARVEOUT => set.get(&which).copied().unwrap_or(-1),
        10..=15 => set.get(&which).copied().unwrap_or(0),
        _ => return None,
    })
}

/// Checks a value that is to be set.
pub(super) fn check_set(
    session: &Session,
    entry: &Entry,
    which: u32,
    value: i32,
) -> Result<(), Fail> {
    let card = session
        .driver
        .cards
        .first()
        .map(|card| card.config().shared_bytes_per_block)
        .unwrap_or_default();
    match which {
        MAX_DYNAMIC_SHARED => {
            let most = card.saturating_sub(entry.static_shared_bytes) as i32;
            unless(!(0..=most).contains(&value), code::INVALID_VALUE, || {
                format!(
                    "{value} bytes of dynamic shared memory for `{}`, at most {most} are there",
                    entry.name
                )
            })
        }
        CARVEOUT => unless(!(-1..=100).contains(&value), code::INVALID_VALUE, || {
            format!("a carveout of {value} per cent")
        }),
        10..=15 => Ok(()),
        _ => Err(fail(code::INVALID_VALUE, format!("function attribute {which} cannot be set"))),
    }
}

/// A launch as the caller described it.
pub(super) struct Given {
    pub function: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: u64,
    pub params: In<usize>,
    pub extra: In<usize>,
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: In<Attribute>,
    attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Attribute {
    id: u32,
    _value: [u64; 8],
}

/// Launch attributes that change nothing here: none, what the L2 cache keeps, synchronisation policy, launching while the
/// kernel before ends (the order of streams is kept all the same), priority, memory domains.
const IGNORED: [u32; 8] = [0, 1, 3, 6, 8, 9, 10, 14];

/// The arguments: from one pointer a parameter, or from one buffer.
fn arguments(entry: &Entry, params: In<usize>, extra: In<usize>) -> Result<Vec<Arg>, Fail> {
    let wrong = |said: String| fail(code::INVALID_VALUE, said);
    if !params.is_null() {
        unless(!extra.is_null(), code::INVALID_VALUE, || {
            "both parameters and extra options are given".into()
        })?;
        let read = |(at, p): (usize, &ptxsim::Param)| {
            let from = params.at(at)?;
            if from == 0 {
                return Err(wrong(format!(
                    "the pointer to parameter {at} of `{}` is null",
                    entry.name
                )));
            }
            // SAFETY: the caller gave a pointer to each parameter, which the PTX says the size of.
            Ok(Arg::bytes(unsafe { HostAddress(from).bytes(0, p.size) }))
        };
        return entry.params.iter().enumerate().map(read).collect();
    }
    if extra.is_null() {
        let count = entry.params.len();
        unless(count > 0, code::INVALID_VALUE, || {
            format!("`{}` takes {count} parameters, none are given", entry.name)
        })?;
        return Ok(Vec::new());
    }
    // CU_LAUNCH_PARAM_END, _BUFFER_POINTER, _BUFFER_SIZE.
    let (mut buffer, mut size) = (0, 0);
    for at in (0..).step_by(2) {
        match extra.at(at)? {
            0 => break,
            1 => buffer = extra.at(at + 1)?,
            // SAFETY: the option's value is a pointer to a size.
            2 => size = unsafe { raw::get_at_address::<usize>(extra.at(at + 1)?)? },
            other => return Err(wrong(format!("no extra option {other} of a launch"))),
        }
    }
    let cut = |p: &ptxsim::Param| {
        if buffer == 0 || p.offset + p.size > size {
            return Err(wrong(format!(
                "`{}` has {} bytes of parameter `{}` from byte {} on, the buffer has {size} bytes",
                entry.name, p.size, p.name, p.offset
            )));
        }
        // SAFETY: the caller gave a buffer of `size` bytes, within which this lies.
        Ok(Arg::bytes(unsafe { HostAddress(buffer).bytes(p.offset, p.size) }))
    };
    entry.params.iter().map(cut).collect()
}

/// Gives a launch to its stream.
pub(super) fn launch(given: &Given) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let current = session.current()?;
    let function = resolve(&mut session, given.function)?;
    let stream = session.stream(given.stream)?;
    let context = session.streams.get(&stream).map_or(0, |queue| queue.context);
    let found = session
        .functions
        .get(&function)
        .ok_or_else(|| session.no(crate::driver::Kind::Function, function))?;
    unless(found.context != current, code::INVALID_CONTEXT, || {
        format!(
            "`{}` is of context {:#x}, the current one is {current:#x}",
            found.entry.name, found.context
        )
    })?;
    unless(context != current, code::INVALID_HANDLE, || {
        format!("the stream is of context {context:#x}, the current one is {current:#x}")
    })?;
    let entry = Arc::clone(&found.entry);
    let args = arguments(&entry, given.params, given.extra)?;
    let options = &session.driver.options;
    let mut config = LaunchConfig::new(given.grid, given.block);
    config.shared_bytes = given.shared_bytes;
    let asked = found.set.get(&MAX_DYNAMIC_SHARED).copied().unwrap_or(0).max(0) as u32;
    let free = SHARED_BYTES_WITHOUT_OPT_IN.saturating_sub(entry.static_shared_bytes);
    config.allow_large_shared = given.shared_bytes <= asked.max(free) && asked > free;
    config.check_blocks = options.check_blocks;
    config.warp_order = options.warp_order;
    let card = session.context(context)?.card;
    let (module, module_handle) = (Arc::clone(&found.module), found.module_handle);
    session.driver.cards[card].check_launch(&module, &entry.name, &config, &args)?;
    let hosts = pointed_to(&session, &args);
    let work =
        Launch { card, module_handle, module, kernel: entry.name.clone(), config, args, hosts };
    session.give(stream, Work::Launch(Box::new(work)), Vec::new())?;
    Ok(())
}

/// The page-locked memory that arguments point to: kernels may use it as it is.
fn pointed_to(session: &Session, args: &[Arg]) -> Vec<usize> {
    let words = args.iter().flat_map(|arg| arg.0.chunks_exact(8));
    let mut hosts: Vec<usize> = words
        .filter_map(|word| {
            let at = u64::from_le_bytes(word.try_into().ok()?) as usize;
            session.pinned(at, 1).map(|(base, _)| base)
        })
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// The function that a handle stands for: its own, or a library's kernel in the current context.
pub(super) fn resolve(session: &mut Session, handle: u64) -> Result<u64, Fail> {
    if session.functions.contains_key(&handle) {
        return Ok(handle);
    }
    if session.kernels.contains_key(&handle) {
        return super::library::function(session, handle);
    }
    Err(session.no(crate::driver::Kind::Function, handle))
}

api! {
    fn cuFuncGetAttribute(value: Out<i32>, which: u32, function: u64) {
        let mut session = Session::open()?;
        let function = resolve(&mut session, function)?;
        let session = &session;
        let found = session.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        session.healthy(found.context)?;
        let target = found.module.target();
        let said = attribute(session, &found.entry, &found.set, target, which);
        value.put(said.ok_or_else(|| fail(code::INVALID_VALUE, format!("no function attribute {which}")))?)
    }

    fn cuFuncSetAttribute(function: u64, which: u32, value: i32) {
        let mut session = Session::open()?;
        let function = resolve(&mut session, function)?;
        let found = session.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        session.healthy(found.context)?;
        check_set(&session, &found.entry, which, value)?;
        if let Some(found) = session.functions.get_mut(&function) {
            found.set.insert(which, value);
        }
        Ok(())
    }

    fn cuFuncSetCacheConfig(function: u64, config: u32) {
        let mut session = Session::open()?;
        resolve(&mut session, function)?;
        unless(config > 3, code::INVALID_VALUE, || format!("no cache configuration {config}"))
    }

    fn cuFuncSetSharedMemConfig(function: u64, config: u32) {
        let mut session = Session::open()?;
        resolve(&mut session, function)?;
        unless(config > 2, code::INVALID_VALUE, || format!("no configuration {config} of shared memory"))
    }

    fn cuFuncGetModule(module: Out<u64>, function: u64) {
        let mut session = Session::open()?;
        let function = resolve(&mut session, function)?;
        module.put(session.functions.get(&function).map_or(0, |found| found.module_handle))
    }

    fn cuFuncGetName(name: Out<usize>, function: u64) {
        let mut session = Session::open()?;
        let function = resolve(&mut session, function)?;
        name.put(session.functions.get(&function).map_or(0, |found| found.name.as_ptr() as usize))
    }

    fn cuFuncGetParamInfo(function: u64, index: usize, offset: Out<usize>, size: Out<usize>) {
        let mut session = Session::open()?;
        let function = resolve(&mut session, function)?;
        let found = session.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        let param = found.entry.params.get(index);
        let param = param.ok_or_else(|| fail(code::INVALID_VALUE, format!("`{}` has no parameter {index}", found.entry.name)))?;
        offset.put(param.offset)?;
        size.put_if(param.size);
        Ok(())
    }

    fn cuFuncIsLoaded(state: Out<u32>, function: u64) {
        let mut session = Session::open()?;
        resolve(&mut session, function)?;
        state.put(1)
    }

    fn cuFuncLoad(function: u64) {
        let mut session = Session::open()?;
        resolve(&mut session, function).map(|_| ())
    }

    fn cuLaunchKernelEx as cuLaunchKernelEx_ptsz(config: In<Config>, function: u64, params: In<usize>, extra: In<usize>) {
        let config = config.get()?;
        for at in 0..config.attribute_count as usize {
            let id = config.attributes.at(at)?.id;
            unless(!IGNORED.contains(&id), code::NOT_SUPPORTED, || format!("launch attribute {id} is not simulated"))?;
        }
        let Config { grid, block, shared_bytes, stream, .. } = config;
        launch(&Given { function, grid, block, shared_bytes, stream, params, extra })
    }

    fn cuLaunchKernel as cuLaunchKernel_ptsz(
        function: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32,
        stream: u64, params: In<usize>, extra: In<usize>,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        launch(&Given { function, grid, block, shared_bytes, stream, params, extra })
    }
}
