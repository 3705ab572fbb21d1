//! What a pickle builds: objects that name each other by number, so that one may stand in several places.

use std::ops::Deref;
use std::rc::Rc;

use safetensors::Dtype;

use super::globals::Global;

/// The number of an object.
pub(super) type Id = u32;

/// Most dimensions of a tensor or an array.
pub(super) const MAX_DIMENSIONS: usize = 16;

/// One object.
#[derive(Debug, Clone)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A value that no tensor and no array is made of: a float, a long integer, a NumPy scalar.
    Opaque,
    Text(&'a str),
    Bytes(Bytes<'a>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// In the order in which it was filled; of equal keys the last one holds.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
    NumberType(NumberType),
    Array(Box<Array<'a>>),
}

/// Bytes that may stand in many places without being copied.
#[derive(Debug, Clone)]
pub(super) enum Bytes<'a> {
    /// A part of the pickle.
    InFile(&'a [u8]),
    /// Made from text.
    Made(Rc<[u8]>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::InFile(bytes) => bytes,
            Bytes::Made(bytes) => bytes,
        }
    }
}

/// The values behind PyTorch tensors, as the pickle names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub dtype: Dtype,
    /// The entry of the archive that holds them.
    pub key: &'a str,
    pub elements: usize,
}

/// A view of a [`Storage`], nothing of it checked against the storage yet.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub storage: Storage<'a>,
    /// In elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// The type of a NumPy array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberType {
    /// `f`, `i`, `u` or `b`.
    pub kind: u8,
    /// Bytes of a value.
    pub size: usize,
    pub big_endian: bool,
}

/// A NumPy array.
#[derive(Debug, Clone)]
pub(super) struct Array<'a> {
    pub shape: Vec<usize>,
    pub number: NumberType,
    /// The first index runs fastest.
    pub fortran: bool,
    pub bytes: Bytes<'a>,
}

impl Object<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool(_) => "a truth value",
            Object::Int(_) => "a whole number",
            Object::Opaque => "a number",
            Object::Text(_) => "text",
            Object::Bytes(_) => "bytes",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Dict(_) => "a dict",
            Object::Global(_) => "a name",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
            Object::NumberType(_) => "a number type",
            Object::Array(_) => "an array",
        }
    }
}

/// All objects of a pickle.
#[derive(Debug, Default)]
pub(super) struct Objects<'a> {
    pub all: Vec<Object<'a>>,
}

impl<'a> Objects<'a> {
    /// The object of this number. Numbers come from this list, so it is there; `None` stands for a broken promise.
    pub fn get(&self, id: Id) -> &Object<'a> {
        self.all.get(id as usize).unwrap_or(&Object::None)
    }

    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is 0 or more and fits memory.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn truth(&self, id: Id) -> Option<bool> {
        match self.get(id) {
            Object::Bool(value) => Some(*value),
            Object::Int(value) => Some(*value != 0),
            _ => None,
        }
    }

    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// A tuple or list of sizes, not too many of them.
    pub fn sizes(&self, id: Id) -> Result<Vec<usize>, String> {
        let items: &[Id] = match self.get(id) {
            Object::Tuple(items) => items,
            Object::List(items) => items,
            other => return Err(format!("found {} for a shape, expected a tuple", other.kind())),
        };
        if items.len() > MAX_DIMENSIONS {
            let found = items.len();
            return Err(format!("found {found} dimensions, expected at most {MAX_DIMENSIONS}"));
        }
        let size = |&item: &Id| {
            self.size(item).ok_or_else(|| {
                format!("found {} in a shape, expected numbers from 0", self.get(item).kind())
            })
        };
        items.iter().map(size).collect()
    }
}
