//! Pickles read as data: PyTorch's state dicts and NumPy's arrays, by a whitelist, with nothing executed.
//!
//! A pickle is a program for a stack machine that may call any function by its name. `machine` runs the part of it
//! that builds plain data. The names it knows are those in `globals`; any other is an error that says it.
//!
//! # Opcodes
//! What `torch.save` (protocol 2) and `pickle.dump` (protocols 2 to 5) write for tensors and arrays:
//!
//! | what | opcodes |
//! |---|---|
//! | frame | `PROTO` (2 to 5), `FRAME`, `STOP` |
//! | values | `NONE` `NEWTRUE` `NEWFALSE` `BININT` `BININT1` `BININT2` `LONG1` `LONG4` `BINFLOAT` |
//! | text, bytes | `BINUNICODE` `SHORT_BINUNICODE` `BINUNICODE8` `BINBYTES` `SHORT_BINBYTES` `BINBYTES8` `BYTEARRAY8` |
//! | containers | `MARK` `EMPTY_TUPLE` `TUPLE` `TUPLE1` `TUPLE2` `TUPLE3` `EMPTY_LIST` `APPEND` `APPENDS` `EMPTY_DICT` `SETITEM` `SETITEMS` |
//! | memory | `BINPUT` `LONG_BINPUT` `MEMOIZE` `BINGET` `LONG_BINGET` |
//! | names | `GLOBAL` `STACK_GLOBAL` `REDUCE` `BUILD` `BINPERSID` |
//!
//! Everything else is refused by its number: text opcodes of protocol 0, classes (`NEWOBJ`, `INST`, `OBJ`), out-of-band
//! buffers, extension codes.
//!
//! # Bounds
//! No length is believed: text and bytes are parts of the file, not copies. An object costs at most some
//! hundred bytes, and at least one in the file; there are at most `MAX_OBJECTS` of them. What is decoded (bytes written as
//! text, before protocol 3) is at most the file's size. Nothing here calls itself without a bound on the depth.

mod archive;
mod class_features;
mod globals;
mod machine;
mod numpy;
mod object;
mod state_dict;
mod torch;
mod write;
mod zip;

pub use archive::TorchFile;
pub use class_features::{ClassFeatures, class_features_of_bytes, read_class_features};
pub use state_dict::{StateDict, StateTensor};

use crate::model::weight_file;
use crate::tensor_file::printable;

/// True for the first bytes of a pickle of protocol 2 or later.
pub fn is_pickle(start: &[u8]) -> bool {
    weight_file::is_pickle(start)
}

/// Text from a file for a message: its start, with control characters made visible.
fn short(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}
