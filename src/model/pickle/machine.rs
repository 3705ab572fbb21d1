//! The stack machine: bytes to objects, one opcode after another.

use std::collections::HashMap;

use super::globals::{self, Global};
use super::object::{Bytes, Id, Object, Objects};
use super::{numpy, short, torch};

/// Most objects of one pickle; a checkpoint of the largest backbone with its optimiser has a tenth of that.
pub(super) const MAX_OBJECTS: usize = 1 << 20;
/// Most marks that are open at a time: how deep containers may lie in each other.
const MAX_MARKS: usize = 256;
/// Longest module or name.
const MAX_NAME: usize = 512;
/// The number at the start of files that PyTorch before 1.6 wrote.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Runs a pickle and returns its objects and which of them it is.
///
/// The error is a sentence about the pickle, with the position.
pub(super) fn run(bytes: &[u8]) -> Result<(Objects<'_>, Id), String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Objects::default(),
        decoded: 0,
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => (),
            Ok(Some(result)) => return Ok((machine.objects, result)),
            Err(problem) => return Err(format!("byte {at} of the pickle: {problem}")),
        }
    }
}

/// True for the start of a file that PyTorch before 1.6 wrote.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.get(2..4) == Some(&[0x8a, 10]) && bytes.get(4..14) == Some(&LEGACY_MAGIC)
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    objects: Objects<'a>,
    /// Bytes made from text so far.
    decoded: usize,
}

impl<'a> Machine<'a> {
    /// Takes one opcode. The result comes with the last one.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let opcode = self.byte()?;
        match opcode {
            0x80 => {
                let version = self.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(format!("found pickle protocol {version}, expected 2 to 5"));
                }
            }
            // A frame's length helps readers of streams; here all bytes are at hand.
            0x95 => _ = self.take(8)?,
            b'.' => return self.stop().map(Some),
            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Object::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            0x8a => {
                let length = self.length(true, false)?;
                self.long(length)?;
            }
            0x8b => {
                let length = self.length(false, false)?;
                self.long(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Object::Opaque)?;
            }
            b'X' | 0x8c | 0x8d => {
                let length = self.length(opcode == 0x8c, opcode == 0x8d)?;
                let text = std::str::from_utf8(self.take(length)?)
                    .map_err(|reason| format!("text that is not UTF-8: {reason}"))?;
                self.push(Object::Text(text))?;
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(opcode == b'C', matches!(opcode, 0x8e | 0x96))?;
                let bytes = self.take(length)?;
                self.push(Object::Bytes(Bytes::InFile(bytes)))?;
            }
            b'(' => {
                if self.marks.len() == MAX_MARKS {
                    return Err(format!("containers lie more than {MAX_MARKS} deep"));
                }
                self.marks.push(self.stack.len());
            }
            b')' => self.push(Object::Tuple(Box::default()))?,
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let items = self.pop_many(count)?;
                self.push(Object::Tuple(items.into()))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items.into()))?;
            }
            b']' => self.push(Object::List(Vec::new()))?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b's' => {
                let pair = self.pop_many(2)?;
                self.set_items(&pair)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let index = self.byte()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.remember(index)?;
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).map_err(|_| "memory is full")?;
                self.remember(index)?;
            }
            b'h' => {
                let index = self.byte()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                match (self.objects.text(module), self.objects.text(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err("a name that is not text".into()),
                }
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let storage = torch::storage(&self.objects, id)?;
                self.push(Object::Storage(storage))?;
            }
            _ => {
                return Err(format!(
                    "opcode {opcode:#04x}, which plain tensors and arrays do not need"
                ));
            }
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(part) = rest.get(..count) else {
            return Err(format!("cut short: {count} more bytes expected, {} are left", rest.len()));
        };
        self.at += count;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let part = self.take(N)?;
        part.try_into().map_err(|_| "cut short".into())
    }

    /// The length in front of text or bytes: of one byte, of eight, else of four.
    fn length(&mut self, short: bool, long: bool) -> Result<usize, String> {
        let length = match (short, long) {
            (true, _) => u64::from(self.byte()?),
            (_, true) => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        usize::try_from(length).map_err(|_| format!("cut short: {length} more bytes expected"))
    }

    /// Text up to the end of a line.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(MAX_NAME).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| format!("a name of more than {MAX_NAME} bytes"))?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }

    /// An integer of any length, two's complement. Those past 64 bits are not needed for tensors.
    fn long(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return self.push(Object::Opaque);
        }
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.push(Object::Int(i64::from_le_bytes(whole)))
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), String> {
        let id = self.objects.all.len();
        if id == MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} objects"));
        }
        self.objects.all.push(object);
        self.stack.push(id as Id);
        Ok(())
    }

    /// The lowest height of the stack that may be taken from.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(self.stack.split_off(height)),
            _ => Err(String::from("an object is taken that is not there")),
        }
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.pop_many(1)?;
        top.first().copied().ok_or_else(|| "an object is taken that is not there".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is taken that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn top(&self) -> Result<Id, String> {
        let above = self.stack.len() > self.floor();
        let top = self.stack.last().copied().filter(|_| above);
        top.ok_or_else(|| "an object is asked for that is not there".into())
    }

    fn stop(&mut self) -> Result<Id, String> {
        let result = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(String::from("it ends in the middle of a container"));
        }
        Ok(result)
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let list = self.top()?;
        match self.objects.all.get_mut(list as usize) {
            Some(Object::List(list)) => list.extend(items),
            _ => return Err("items are added to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.objects.all.get_mut(dict as usize) {
            Some(Object::Dict(dict)) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Some(Object::Dict(_)) => Err("a key without its value".into()),
            _ => Err("items are set in what is no dict".into()),
        }
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.len() >= MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} objects are remembered"));
        }
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let object = self.memo.get(&index).copied();
        self.stack.push(object.ok_or_else(|| format!("object {index} was never remembered"))?);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        match globals::find(module, name) {
            Some(global) => self.push(Object::Global(global)),
            None => Err(format!(
                "found `{}.{}`, which is no part of plain tensors and arrays; nothing is executed",
                short(module),
                short(name)
            )),
        }
    }

    fn reduce(&mut self) -> Result<(), String> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let &Object::Global(global) = self.objects.get(function) else {
            return Err(format!("{} is called", self.objects.get(function).kind()));
        };
        let objects = &self.objects;
        let Some(arguments) = objects.tuple(arguments) else {
            return Err("a call whose arguments are no tuple".into());
        };
        let made = match (global, arguments) {
            (Global::OrderedDict, []) => Object::Dict(Vec::new()),
            (Global::RebuildTensor, arguments) => {
                Object::Tensor(Box::new(torch::tensor(objects, arguments)?))
            }
            (Global::RebuildParameter, [data, ..]) => match objects.get(*data) {
                Object::Tensor(tensor) => Object::Tensor(tensor.clone()),
                other => return Err(format!("found a parameter of {}", other.kind())),
            },
            (Global::Size, [sizes]) => match objects.get(*sizes) {
                // The tuple itself, under one more name.
                Object::Tuple(_) => {
                    self.stack.push(*sizes);
                    return Ok(());
                }
                other => return Err(format!("found a shape of {}", other.kind())),
            },
            (Global::NumberType, arguments) => {
                Object::NumberType(numpy::number_type(objects, arguments)?)
            }
            (Global::Reconstruct, arguments) => {
                Object::Array(Box::new(numpy::empty(objects, arguments)?))
            }
            (Global::FromBuffer, arguments) => {
                Object::Array(Box::new(numpy::from_buffer(objects, arguments)?))
            }
            (Global::Scalar, _) => Object::Opaque,
            (Global::Encode, arguments) => {
                let bytes = numpy::encode(objects, arguments, self.bytes.len() - self.decoded)?;
                self.decoded += bytes.len();
                Object::Bytes(Bytes::Made(bytes.into()))
            }
            (global, arguments) => {
                return Err(format!("{global:?} is called with {} arguments", arguments.len()));
            }
        };
        self.push(made)
    }

    /// Sets what belongs to an object beside its content.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let target = self.top()?;
        let made = match self.objects.get(target) {
            // The attributes of an ordered dict: PyTorch keeps versions of modules there.
            Object::Dict(_) => return Ok(()),
            Object::NumberType(number) => {
                Object::NumberType(numpy::number_type_state(&self.objects, *number, state)?)
            }
            Object::Array(_) => Object::Array(Box::new(numpy::array_state(&self.objects, state)?)),
            other => return Err(format!("{} is given a state", other.kind())),
        };
        if let Some(place) = self.objects.all.get_mut(target as usize) {
            *place = made;
        }
        Ok(())
    }
}
