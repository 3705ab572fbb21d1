//! Modules and their entry points.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::decode;
use crate::error::{Error, Result};
use crate::ir::{
    Code, DecodedEntry, FUNCTION_BASE, FUNCTION_STEP, ModuleData, ModuleVar, Relocation,
};
use crate::parse::ast::{Ast, Immediate, Initial, VarSpace, Variable};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A parsed and decoded PTX module.
#[derive(Debug, Clone)]
pub struct Module {
    pub(crate) data: Arc<ModuleData>,
}

/// A parameter of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name in the PTX.
    pub name: String,
    /// Bytes from the start of the parameters.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// What a module says about one of its kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name to launch.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// `.maxntid`: the launch bound, when given.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: the one block shape allowed, when given.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`, when given.
    pub min_blocks_per_multiprocessor: Option<u32>,
    /// Static shared memory in bytes.
    pub static_shared_bytes: u32,
    /// Local memory of a thread in bytes, as declared (stack frames).
    pub local_bytes: u32,
    /// Instructions in its body.
    pub instructions: usize,
}

impl Module {
    /// Parses PTX text. `name` is what errors call the module, such as its file name.
    ///
    /// An entry with something that the simulator does not know does not take the others with it:
    /// it is [`refused`](Module::refused), and asking for it gives the error.
    ///
    /// # Errors
    /// [`Error::Parse`] or [`Error::UnknownDirective`], each with the line.
    pub fn parse(name: &str, text: &str) -> Result<Module> {
        let ast = crate::parse::parse(name, text)?;
        let mut entries = Vec::with_capacity(ast.entries.len());
        for e in &ast.entries {
            let code = decode(name, &ast, e).map(Arc::new);
            entries.push(DecodedEntry { name: e.name.clone(), code });
        }
        let variables =
            ast.variables.iter().map(|v| initial(name, &ast, v)).collect::<Result<Vec<_>>>()?;
        let data = ModuleData {
            name: name.to_string(),
            target: ast.target,
            version: ast.version,
            lines: text.lines().map(|l| l.trim().to_string()).collect(),
            files: ast.files,
            variables,
            entries,
            id: NEXT_ID.fetch_add(1, Relaxed),
        };
        Ok(Module { data: Arc::new(data) })
    }

    /// As [`parse`](Module::parse); text that this process has parsed before is not parsed again, where all of its entries can
    /// run. The last 64 texts are kept. What a module holds on a device is its own all the same.
    ///
    /// # Errors
    /// As there.
    pub fn parse_once(name: &str, text: &str) -> Result<Module> {
        static KEPT: Mutex<Vec<(Arc<str>, Module)>> = Mutex::new(Vec::new());
        const MOST: usize = 64;
        // A panic elsewhere leaves the list whole.
        let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().iter().find(|(known, _)| **known == *text).map(|(_, m)| m.clone());
        if let Some(module) = known {
            let id = NEXT_ID.fetch_add(1, Relaxed);
            let data = ModuleData { name: name.to_string(), id, ..(*module.data).clone() };
            return Ok(Module { data: Arc::new(data) });
        }
        let module = Module::parse(name, text)?;
        if module.refused().is_empty() {
            let mut kept = kept();
            if kept.len() == MOST {
                kept.remove(0);
            }
            kept.push((text.into(), module.clone()));
        }
        Ok(module)
    }

    /// The name given at parsing.
    pub fn name(&self) -> &str {
        &self.data.name
    }

    /// The architecture of `.target`, as 80 for `sm_80`.
    pub fn target(&self) -> u32 {
        self.data.target
    }

    /// The PTX version, major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.data.version
    }

    /// All entries that can run, in the order of the text.
    pub fn entries(&self) -> Vec<Entry> {
        self.data.entries.iter().filter_map(|e| e.code.as_ref().ok()).map(|c| describe(c)).collect()
    }

    /// The entries that cannot run, by name, and why.
    pub fn refused(&self) -> Vec<(String, Error)> {
        let refused = |e: &DecodedEntry| Some((e.name.clone(), e.code.as_ref().err()?.clone()));
        self.data.entries.iter().filter_map(refused).collect()
    }

    /// One entry by name.
    ///
    /// # Errors
    /// [`Error::NoEntry`]; for one that cannot run [`Error::UnknownInstruction`],
    /// [`Error::InstructionNotOnTarget`], [`Error::UnknownDirective`] or [`Error::Parse`], with
    /// the line.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        self.code(name).map(|c| describe(&c))
    }

    pub(crate) fn code(&self, name: &str) -> Result<Arc<Code>> {
        let found = self.data.entries.iter().find(|e| e.name == name);
        let none = || Error::NoEntry {
            module: self.data.name.clone(),
            name: name.to_string(),
            known: self.data.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        found.ok_or_else(none)?.code.clone()
    }
}

fn describe(c: &Code) -> Entry {
    let params = c.params.iter();
    Entry {
        name: c.name.clone(),
        params: params
            .map(|p| Param { name: p.name.clone(), offset: p.offset, size: p.size })
            .collect(),
        max_threads: c.max_threads,
        required_threads: c.required_threads,
        min_blocks_per_multiprocessor: c.min_blocks,
        static_shared_bytes: c.static_shared,
        local_bytes: c.local_bytes,
        instructions: c.own_instrs,
    }
}

/// The initial bytes of a module variable. Shared variables get an empty place, to keep indices.
fn initial(module: &str, ast: &Ast, v: &Variable) -> Result<ModuleVar> {
    let fail = |message: String| Error::Parse { module: module.to_string(), line: v.line, message };
    let device = matches!(v.space, VarSpace::Global | VarSpace::Const);
    if device && (v.is_extern || v.count == 0) && v.init.is_none() {
        return Err(fail(format!("variable `{}` is defined elsewhere", v.name)));
    }
    let values = v.init.as_deref().unwrap_or_default();
    let count = if v.count == 0 { values.len() as u64 } else { v.count };
    let bytes = if device { v.element * count } else { 0 };
    if values.len() as u64 > count {
        return Err(fail(format!("`{}` has {count} elements, {} given", v.name, values.len())));
    }
    let mut init = Vec::with_capacity(values.len() * v.element as usize);
    let mut relocations = Vec::new();
    for x in values {
        let bits = match (x, v.element) {
            (Initial::Literal(Immediate::Int(i)), _) => *i as u64,
            (Initial::Literal(Immediate::F32(b)), 4) => u64::from(*b),
            (Initial::Literal(Immediate::F64(b)), 8) => *b,
            (Initial::Literal(Immediate::F64(b)), 4) => {
                u64::from((f64::from_bits(*b) as f32).to_bits())
            }
            (Initial::Address(name, offset), 8) => {
                let device = |v: &Variable| matches!(v.space, VarSpace::Global | VarSpace::Const);
                let variable = ast.variables.iter().position(|v| v.name == *name && device(v));
                let function = ast.functions.iter().position(|f| f.name == *name);
                let base = match (variable, function) {
                    (Some(_), _) => 0,
                    (None, Some(f)) => FUNCTION_BASE + FUNCTION_STEP * f as u64,
                    (None, None) => {
                        return Err(fail(format!(
                            "`{}` starts with `{name}`, which has no address",
                            v.name
                        )));
                    }
                };
                relocations.push(Relocation {
                    at: init.len(),
                    variable: variable.map(|v| v as u32),
                    add: base.wrapping_add(*offset as u64),
                });
                0
            }
            _ => return Err(fail(format!("an initial value of `{}` does not fit", v.name))),
        };
        init.extend_from_slice(&bits.to_le_bytes()[..v.element.min(8) as usize]);
    }
    let constant = v.space == VarSpace::Const;
    Ok(ModuleVar { name: v.name.clone(), bytes, init, relocations, constant })
}

/// File and line of a `.loc`.
pub(crate) fn source(m: &ModuleData, (file, line): (u32, u32)) -> Option<(String, u32)> {
    let name = m.files.iter().find(|f| f.0 == file)?;
    Some((name.1.clone(), line))
}

/// A line of the module's text.
pub(crate) fn text(m: &ModuleData, line: u32) -> String {
    (line as usize).checked_sub(1).and_then(|i| m.lines.get(i)).cloned().unwrap_or_default()
}
