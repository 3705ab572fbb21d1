//! What the simulator does in place of a function: failed assertions, `printf`.

use super::block::Block;
use super::call::{load, store};
use super::mem::resolve;
use super::printf::{self, Source};
use super::warp::{Warp, lanes};
use crate::fault::{Fault, Stop};
use crate::ir::*;
use crate::memory::tags::Kind;

/// Longer strings of a kernel are cut.
const STRING_LIMIT: usize = 1 << 16;

impl Block<'_> {
    pub(super) fn builtin(
        &mut self,
        w: &mut Warp,
        pc: usize,
        b: Builtin,
        c: &Call,
        active: u32,
    ) -> Result<(), Box<Stop>> {
        for l in lanes(active) {
            self.builtin_of(w, pc, b, c, l).map_err(|f| f.at(l as u32))?;
        }
        Ok(())
    }

    fn builtin_of(
        &mut self,
        w: &mut Warp,
        pc: usize,
        b: Builtin,
        c: &Call,
        lane: usize,
    ) -> Result<(), Fault> {
        let mut args = [0; 5];
        for (arg, (passed, bytes)) in args.iter_mut().zip(&c.args) {
            *arg = match passed {
                Passed::Register(r) => w.lane(*r, lane),
                Passed::Memory(a) => load(w, lane, w.addresses(a)[lane], *bytes)?,
            };
        }
        match b {
            Builtin::AssertFail => {
                let mut text = |address| self.string(w, pc, lane, address);
                Err(Fault::Assertion {
                    message: text(args[0])?,
                    file: text(args[1])?,
                    line: args[2] as u32,
                    function: text(args[3])?,
                })
            }
            Builtin::Printf => {
                let count = if args[0] == 0 {
                    -1
                } else {
                    let format = self.bytes(w, pc, lane, args[0])?;
                    let mut values = Values { block: self, w, pc, lane, at: args[1], count: 0 };
                    let mut text = Vec::new();
                    printf::format(&format, &mut values, &mut text)?;
                    let count = values.count;
                    self.printed.extend_from_slice(&text);
                    count
                };
                if let Some((passed, bytes)) = c.results.first() {
                    match passed {
                        Passed::Register(r) => w.set_lane(*r, lane, count as u32 as u64),
                        Passed::Memory(a) => {
                            let to = w.addresses(a)[lane];
                            store(w, lane, to, *bytes, count as u32 as u64)?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Up to eight bytes at a generic address.
    fn read(
        &mut self,
        w: &Warp,
        pc: usize,
        lane: usize,
        address: u64,
        bytes: u32,
    ) -> Result<u64, Fault> {
        let mut v = [0; 4];
        match resolve(address) {
            (MemSpace::Shared, at) => {
                let tid = (w.index * W + lane) as u16;
                self.shared.read(at, bytes, tid, false, &mut v)?;
            }
            (MemSpace::Local, at) => w.local.read(lane, at, bytes, &mut v)?,
            (MemSpace::Param, at) => v = self.param(at, bytes)?,
            (_, at) => {
                let mut hint = self.hints[pc];
                let view = &self.env.view;
                let found = view.find(at, bytes, &mut hint)?;
                view.read(found, at, bytes, self.who, Kind::Plain, &mut v)?;
                self.hints[pc] = hint;
            }
        }
        Ok(u64::from(v[0]) | u64::from(v[1]) << 32)
    }

    /// The bytes before the next zero.
    fn bytes(&mut self, w: &Warp, pc: usize, lane: usize, address: u64) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        while out.len() < STRING_LIMIT {
            match self.read(w, pc, lane, address.wrapping_add(out.len() as u64), 1)? as u8 {
                0 => break,
                byte => out.push(byte),
            }
        }
        Ok(out)
    }

    /// A string; none at address 0.
    fn string(&mut self, w: &Warp, pc: usize, lane: usize, address: u64) -> Result<String, Fault> {
        if address == 0 {
            return Ok(String::new());
        }
        Ok(String::from_utf8_lossy(&self.bytes(w, pc, lane, address)?).into_owned())
    }
}

/// The values behind a format, laid out as a struct of them.
struct Values<'b, 'e, 'w> {
    block: &'b mut Block<'e>,
    w: &'w Warp,
    pc: usize,
    lane: usize,
    at: u64,
    /// How many were taken.
    count: i32,
}

impl Source for Values<'_, '_, '_> {
    fn next(&mut self, bytes: u32) -> Result<u64, Fault> {
        if self.at == 0 {
            return Err(Fault::BadOperand("printf has fewer values than its format names".into()));
        }
        self.at = self.at.next_multiple_of(u64::from(bytes));
        let v = self.block.read(self.w, self.pc, self.lane, self.at, bytes)?;
        self.at += u64::from(bytes);
        self.count += 1;
        Ok(v)
    }

    fn string(&mut self, address: u64) -> Result<Vec<u8>, Fault> {
        if address == 0 {
            return Ok(b"(null)".to_vec());
        }
        self.block.bytes(self.w, self.pc, self.lane, address)
    }
}
