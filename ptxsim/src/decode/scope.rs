//! Names in scope: registers, variables, and the slots they and the literals get.

use std::collections::HashMap;

use super::RegRef;
use super::types::Ty;
use crate::ir::*;
use crate::parse::ast::{VarSpace, Variable};

/// Where a variable lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Module variable, by index.
    Global(u32),
    /// The start of dynamic shared memory.
    Dynamic,
    Shared(u32),
    /// Of the thread: from the start of its frame.
    Local(u32),
    /// A kernel's parameter.
    Param(u32),
    /// `.param` of a call: in the frame, as local memory is.
    CallParam(u32),
}

/// A declared variable: shared ones get their offset when they are first used.
#[derive(Debug, Clone, Copy)]
enum Declared {
    At(Place),
    SharedLater { align: u64, bytes: u64 },
}

#[derive(Debug, Default)]
struct Scope {
    id: usize,
    single: HashMap<String, Ty>,
    ranges: HashMap<String, (u32, Ty)>,
    variables: HashMap<String, Declared>,
    /// Bytes of a variable's element, and of all of it.
    sizes: HashMap<String, (u64, u64)>,
}

/// What is left when a body is decoded.
pub(super) struct Finished {
    pub n32: usize,
    pub n64: usize,
    pub npred: usize,
    pub consts32: Vec<(Slot, u32)>,
    pub consts64: Vec<(Slot, Const64)>,
    pub specials: Vec<(Slot, Special)>,
    pub params: Vec<ParamSlot>,
    pub param_bytes: usize,
    pub static_shared: u32,
    pub dynamic_offset: u32,
    pub local_bytes: u32,
}

pub(super) struct Scopes {
    stack: Vec<Scope>,
    next_id: usize,
    slots: HashMap<(usize, String), (RegRef, Ty)>,
    n32: u32,
    n64: u32,
    npred: u32,
    consts32: HashMap<u32, Slot>,
    consts64: HashMap<Const64, Slot>,
    specials: HashMap<Special, Slot>,
    params: Vec<ParamSlot>,
    param_bytes: usize,
    shared_bytes: u64,
    dynamic_align: u64,
    /// 32-bit and 64-bit slots that hold the dynamic base, fixed at the end.
    dynamic: (Option<Slot>, Option<Slot>),
    /// Bytes of the frame so far: of the entry, or of the function being decoded.
    frame_bytes: u64,
    /// What a function's activation has for itself; `None` in an entry, whose frame starts at 0.
    activation: Option<Activation>,
    scratch: (Option<Slot>, Option<Slot>),
}

/// Slots of a function that each of its calls has anew.
#[derive(Debug, Default)]
pub(super) struct Activation {
    pub registers: Vec<RegRef>,
    /// Slots that hold an address of the frame, and where from its start.
    pub addresses: HashMap<i64, Slot>,
    pub addresses32: HashMap<i64, Slot>,
}

pub(super) fn round_up(v: u64, to: u64) -> u64 {
    v.div_ceil(to.max(1)).saturating_mul(to.max(1))
}

impl Scopes {
    pub fn new() -> Self {
        Scopes {
            stack: vec![Scope::default()],
            next_id: 1,
            slots: HashMap::new(),
            n32: 0,
            n64: 0,
            npred: 2,
            consts32: HashMap::new(),
            consts64: HashMap::new(),
            specials: HashMap::new(),
            params: Vec::new(),
            param_bytes: 0,
            shared_bytes: 0,
            dynamic_align: 16,
            dynamic: (None, None),
            frame_bytes: 0,
            activation: None,
            scratch: (None, None),
        }
    }

    /// Begins a function: what is declared from here on is its own.
    pub fn begin_function(&mut self) -> u64 {
        self.open();
        self.activation = Some(Activation::default());
        std::mem::take(&mut self.frame_bytes)
    }

    /// Ends it, with the frame size from before; gives its own size and its slots.
    pub fn end_function(&mut self, before: u64) -> (u64, Activation) {
        // What a refused body left open goes too.
        self.stack.truncate(1);
        let bytes = std::mem::replace(&mut self.frame_bytes, before);
        (bytes, self.activation.take().unwrap_or_default())
    }

    /// A slot with the address of a place in the frame.
    pub fn frame64(&mut self, offset: i64) -> Slot {
        if self.activation.is_none() {
            return self.const64(Const64::Value(offset as u64));
        }
        let fresh = self.n64;
        let addresses = self.activation.get_or_insert_default();
        let s = *addresses.addresses.entry(offset).or_insert(fresh);
        self.n64 += u32::from(s == fresh);
        s
    }

    /// The same in 32 bits.
    pub fn frame32(&mut self, offset: i64) -> Slot {
        if self.activation.is_none() {
            return self.const32(offset as u32);
        }
        let fresh = self.n32;
        let addresses = self.activation.get_or_insert_default();
        let s = *addresses.addresses32.entry(offset).or_insert(fresh);
        self.n32 += u32::from(s == fresh);
        s
    }

    /// Whether a function's body is decoded, not an entry's.
    pub fn in_function(&self) -> bool {
        self.activation.is_some()
    }

    /// Bytes of a variable's element, and of all of it.
    pub fn sizes(&self, name: &str) -> Option<(u64, u64)> {
        self.stack.iter().rev().find_map(|s| s.sizes.get(name).copied())
    }

    /// The number of the innermost open scope, and of the next that opens.
    pub fn numbers(&self) -> (usize, usize) {
        (self.stack.last().map_or(0, |s| s.id), self.next_id)
    }

    pub fn open(&mut self) {
        self.stack.push(Scope { id: self.next_id, ..Scope::default() });
        self.next_id += 1;
    }

    pub fn close(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
    }

    /// Back to what the module declares.
    pub fn close_all(&mut self) {
        self.stack.truncate(1);
    }

    /// Identities of the open scopes, innermost first.
    pub fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.stack.iter().rev().map(|s| s.id)
    }

    fn top(&mut self) -> &mut Scope {
        // The stack is never empty: `close` keeps the outermost scope.
        let last = self.stack.len() - 1;
        &mut self.stack[last]
    }

    pub fn register(&mut self, name: &str, count: Option<u32>, ty: Ty) {
        match count {
            None => self.top().single.insert(name.to_string(), ty).map(|_| ()),
            Some(n) => self.top().ranges.insert(name.to_string(), (n, ty)).map(|_| ()),
        };
    }

    pub fn module_variable(&mut self, index: u32, v: &Variable) {
        let declared = match v.space {
            VarSpace::Shared if v.is_extern || v.count == 0 => {
                self.dynamic_align = self.dynamic_align.max(v.align);
                Declared::At(Place::Dynamic)
            }
            VarSpace::Shared => Declared::SharedLater { align: v.align, bytes: v.bytes() },
            _ => Declared::At(Place::Global(index)),
        };
        self.declare(v, declared);
    }

    fn declare(&mut self, v: &Variable, declared: Declared) {
        let top = self.top();
        top.variables.insert(v.name.clone(), declared);
        top.sizes.insert(v.name.clone(), (v.element, v.bytes()));
    }

    pub fn param(&mut self, v: &Variable) {
        let offset = round_up(self.param_bytes as u64, v.align) as usize;
        let size = v.bytes() as usize;
        self.param_bytes = offset.saturating_add(size);
        self.params.push(ParamSlot { name: v.name.clone(), offset, size });
        self.declare(v, Declared::At(Place::Param(offset as u32)));
    }

    /// A place for a variable in the frame.
    fn in_frame(&mut self, v: &Variable) -> u32 {
        let at = round_up(self.frame_bytes, v.align);
        self.frame_bytes = at.saturating_add(v.bytes());
        at.min(u64::from(u32::MAX)) as u32
    }

    /// A shared or local variable of a body, or a parameter of a call.
    pub fn variable(&mut self, v: &Variable) {
        let declared = if v.space == VarSpace::Shared {
            Declared::SharedLater { align: v.align, bytes: v.bytes() }
        } else if v.space == VarSpace::Param {
            Declared::At(Place::CallParam(self.in_frame(v)))
        } else {
            Declared::At(Place::Local(self.in_frame(v)))
        };
        self.declare(v, declared);
    }

    /// The place of a variable; a shared one is laid out at its first use, so that an entry
    /// has only what it uses.
    pub fn place(&mut self, name: &str) -> Option<Place> {
        for s in self.stack.iter_mut().rev() {
            match s.variables.get_mut(name) {
                None => continue,
                Some(Declared::At(p)) => return Some(*p),
                Some(d) => {
                    let Declared::SharedLater { align, bytes } = *d else { continue };
                    let at = round_up(self.shared_bytes, align);
                    self.shared_bytes = at.saturating_add(bytes);
                    *d = Declared::At(Place::Shared(at as u32));
                    return Some(Place::Shared(at as u32));
                }
            }
        }
        None
    }

    pub fn lookup(&mut self, name: &str) -> Option<(RegRef, Ty)> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, number) = name.split_at(name.len() - digits);
        let index = number.parse::<u32>().ok();
        let (id, ty) = self.stack.iter().rev().find_map(|s| {
            if let Some(&ty) = s.single.get(name) {
                return Some((s.id, ty));
            }
            let &(n, ty) = s.ranges.get(prefix)?;
            (index? < n).then_some((s.id, ty))
        })?;
        let key = (id, name.to_string());
        if let Some(r) = self.slots.get(&key) {
            return Some(*r);
        }
        let r = if ty == Ty::Pred {
            self.npred += 1;
            RegRef::Pred(self.npred - 1)
        } else if ty.is_64() {
            RegRef::R64(self.new64())
        } else {
            RegRef::R32(self.new32())
        };
        self.slots.insert(key, (r, ty));
        if let Some(activation) = &mut self.activation {
            activation.registers.push(r);
        }
        Some((r, ty))
    }

    fn new32(&mut self) -> Slot {
        self.n32 += 1;
        self.n32 - 1
    }

    fn new64(&mut self) -> Slot {
        self.n64 += 1;
        self.n64 - 1
    }

    pub fn const32(&mut self, v: u32) -> Slot {
        if let Some(&s) = self.consts32.get(&v) {
            return s;
        }
        let s = self.new32();
        self.consts32.insert(v, s);
        s
    }

    pub fn const64(&mut self, v: Const64) -> Slot {
        if let Some(&s) = self.consts64.get(&v) {
            return s;
        }
        let s = self.new64();
        self.consts64.insert(v, s);
        s
    }

    pub fn special(&mut self, v: Special) -> Slot {
        if let Some(&s) = self.specials.get(&v) {
            return s;
        }
        let s = self.new32();
        self.specials.insert(v, s);
        s
    }

    pub fn dynamic32(&mut self) -> Slot {
        let s = self.dynamic.0.unwrap_or_else(|| self.new32());
        self.dynamic.0 = Some(s);
        s
    }

    pub fn dynamic64(&mut self) -> Slot {
        let s = self.dynamic.1.unwrap_or_else(|| self.new64());
        self.dynamic.1 = Some(s);
        s
    }

    /// A slot for results nobody reads.
    pub fn scratch32(&mut self) -> Slot {
        let s = self.scratch.0.unwrap_or_else(|| self.new32());
        self.scratch.0 = Some(s);
        s
    }

    pub fn scratch64(&mut self) -> Slot {
        let s = self.scratch.1.unwrap_or_else(|| self.new64());
        self.scratch.1 = Some(s);
        s
    }

    pub fn finish(self) -> Finished {
        let dynamic_offset = round_up(self.shared_bytes, self.dynamic_align) as u32;
        let mut consts32: Vec<_> = self.consts32.iter().map(|(&v, &s)| (s, v)).collect();
        let mut consts64: Vec<_> = self.consts64.iter().map(|(&v, &s)| (s, v)).collect();
        consts32.extend(self.dynamic.0.map(|s| (s, dynamic_offset)));
        let base = Const64::Value(u64::from(dynamic_offset));
        consts64.extend(self.dynamic.1.map(|s| (s, base)));
        consts32.sort_unstable_by_key(|c| c.0);
        consts64.sort_unstable_by_key(|c| c.0);
        let mut specials: Vec<_> = self.specials.iter().map(|(&v, &s)| (s, v)).collect();
        specials.sort_unstable_by_key(|c| c.0);
        Finished {
            n32: self.n32 as usize,
            n64: self.n64 as usize,
            npred: self.npred as usize,
            consts32,
            consts64,
            specials,
            params: self.params,
            param_bytes: self.param_bytes,
            static_shared: self.shared_bytes.min(u64::from(u32::MAX)) as u32,
            dynamic_offset,
            local_bytes: self.frame_bytes.min(u64::from(u32::MAX)) as u32,
        }
    }
}
