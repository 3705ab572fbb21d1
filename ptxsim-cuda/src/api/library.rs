//! Libraries: modules that are of no context, and their kernels.

use std::collections::HashMap;
use std::sync::Arc;

use super::{kernel, module, unless};
use crate::code::{self, Fail, fail};
use crate::driver::{Kernel, Kind, Library, Loaded, Session};
use crate::image::{self, Logs};
use crate::raw::{In, Out, Text};

fn load(to: Out<u64>, label: Option<String>, image: usize, logs: &Logs) -> Result<(), Fail> {
    let mut session = Session::open()?;
    to.needed()?;
    unless(image == 0, code::INVALID_VALUE, || "the image is null".into())?;
    let handle = session.handle(Kind::Library);
    let label = label.unwrap_or_else(|| format!("library {}", handle >> 4 & 0xffff_ffff));
    let module = session.unlocked(|driver| image::load(driver, &label, image, logs))?;
    session
        .libraries
        .insert(handle, Library { module, modules: HashMap::new(), kernels: HashMap::new() });
    to.put(handle)
}

/// A library's module in the current context.
fn module_here(session: &mut Session, library: u64) -> Result<u64, Fail> {
    let context = session.current()?;
    let found =
        session.libraries.get(&library).ok_or_else(|| session.no(Kind::Library, library))?;
    if let Some(&module) = found.modules.get(&context) {
        return Ok(module);
    }
    let loaded =
        Loaded { context, module: Arc::clone(&found.module), library, functions: HashMap::new() };
    let handle = session.handle(Kind::Module);
    session.modules.insert(handle, loaded);
    if let Some(found) = session.libraries.get_mut(&library) {
        found.modules.insert(context, handle);
    }
    Ok(handle)
}

/// A kernel's function in the current context.
pub(super) fn function(session: &mut Session, handle: u64) -> Result<u64, Fail> {
    let found = session.kernels.get(&handle).ok_or_else(|| session.no(Kind::Kernel, handle))?;
    let (library, entry, set) = (found.library, Arc::clone(&found.entry), found.set.clone());
    let module = module_here(session, library)?;
    let function = module::function(session, module, &entry.name)?;
    if let Some(found) = session.functions.get_mut(&function) {
        for (which, value) in set {
            found.set.entry(which).or_insert(value);
        }
    }
    Ok(function)
}

fn kernel_of(session: &mut Session, library: u64, name: &str) -> Result<u64, Fail> {
    let found =
        session.libraries.get(&library).ok_or_else(|| session.no(Kind::Library, library))?;
    if let Some(&known) = found.kernels.get(name) {
        return Ok(known);
    }
    let entry = Arc::new(found.module.entry(name)?);
    let handle = session.handle(Kind::Kernel);
    let name = name.to_string();
    let text = Arc::new(std::ffi::CString::new(name.clone()).unwrap_or_default());
    session.kernels.insert(handle, Kernel { library, entry, name: text, set: HashMap::new() });
    if let Some(found) = session.libraries.get_mut(&library) {
        found.kernels.insert(name, handle);
    }
    Ok(handle)
}

fn kernel(session: &Session, handle: u64) -> Result<&Kernel, Fail> {
    session.kernels.get(&handle).ok_or_else(|| session.no(Kind::Kernel, handle))
}

api! {
    fn cuLibraryLoadData(
        to: Out<u64>, image: usize, options: In<u32>, values: In<usize>, count: u32, _options: In<u32>, _values: In<usize>,
        _count: u32,
    ) {
        load(to, None, image, &Logs::read(count, options, values)?)
    }

    fn cuLibraryLoadFromFile(
        to: Out<u64>, path: Text, options: In<u32>, values: In<usize>, count: u32, _options: In<u32>, _values: In<usize>,
        _count: u32,
    ) {
        let path = path.get()?;
        let bytes = image::read_file(&path)?;
        load(to, Some(path), bytes.as_ptr() as usize, &Logs::read(count, options, values)?)
    }

    fn cuLibraryUnload(library: u64) {
        let mut session = Session::open()?;
        let found = session.libraries.get(&library).ok_or_else(|| session.no(Kind::Library, library))?;
        let mut modules: Vec<u64> = found.modules.values().copied().collect();
        modules.sort_unstable();
        for module in modules {
            module::unload(&mut session, module)?;
        }
        session.libraries.remove(&library);
        session.kernels.retain(|_, kernel| kernel.library != library);
        Ok(())
    }

    fn cuLibraryGetKernel(to: Out<u64>, library: u64, name: Text) {
        let mut session = Session::open()?;
        to.needed()?;
        to.put(kernel_of(&mut session, library, &name.get()?)?)
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: u64) {
        let session = Session::open()?;
        let found = session.libraries.get(&library).ok_or_else(|| session.no(Kind::Library, library))?;
        count.put(found.module.entries().len() as u32)
    }

    fn cuLibraryEnumerateKernels(to: Out<u64>, room: u32, library: u64) {
        let mut session = Session::open()?;
        to.needed()?;
        let found = session.libraries.get(&library).ok_or_else(|| session.no(Kind::Library, library))?;
        let entries = found.module.entries();
        for (at, entry) in entries.iter().take(room as usize).enumerate() {
            let handle = kernel_of(&mut session, library, &entry.name)?;
            to.put_at(at, handle);
        }
        Ok(())
    }

    fn cuLibraryGetModule(to: Out<u64>, library: u64) {
        let mut session = Session::open()?;
        to.needed()?;
        to.put(module_here(&mut session, library)?)
    }

    fn cuLibraryGetGlobal(at: Out<u64>, bytes: Out<usize>, library: u64, name: Text) {
        let mut session = Session::open()?;
        let module = module_here(&mut session, library)?;
        let (address, size) = module::variable(&session, module, &name.get()?)?;
        at.put_if(address);
        bytes.put_if(size as usize);
        Ok(())
    }

    fn cuKernelGetFunction(to: Out<u64>, handle: u64) {
        let mut session = Session::open()?;
        to.needed()?;
        to.put(function(&mut session, handle)?)
    }

    fn cuKernelGetLibrary(to: Out<u64>, handle: u64) {
        to.put(kernel(&Session::open()?, handle)?.library)
    }

    fn cuKernelGetName(name: Out<usize>, handle: u64) {
        name.put(kernel(&Session::open()?, handle)?.name.as_ptr() as usize)
    }

    fn cuKernelGetParamInfo(handle: u64, index: usize, offset: Out<usize>, size: Out<usize>) {
        let session = Session::open()?;
        let entry = &kernel(&session, handle)?.entry;
        let param = entry.params.get(index);
        let param = param.ok_or_else(|| fail(code::INVALID_VALUE, format!("`{}` has no parameter {index}", entry.name)))?;
        offset.put(param.offset)?;
        size.put_if(param.size);
        Ok(())
    }

    fn cuKernelGetAttribute(value: Out<i32>, which: u32, handle: u64, device: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        let found = kernel(&session, handle)?;
        let target = session.libraries.get(&found.library).map_or(0, |library| library.module.target());
        let said = kernel::attribute(&session, &found.entry, &found.set, target, which);
        value.put(said.ok_or_else(|| fail(code::INVALID_VALUE, format!("no function attribute {which}")))?)
    }

    fn cuKernelSetAttribute(which: u32, value: i32, handle: u64, device: i32) {
        let mut session = Session::open()?;
        session.driver.card(device)?;
        kernel::check_set(&session, &kernel(&session, handle)?.entry, which, value)?;
        if let Some(found) = session.kernels.get_mut(&handle) {
            found.set.insert(which, value);
        }
        // Where it is a function already, that one is told.
        let functions: Vec<u64> = session
            .kernels
            .get(&handle)
            .and_then(|found| Some((session.libraries.get(&found.library)?, &found.entry.name)))
            .map(|(library, name)| {
                let modules = library.modules.values().filter_map(|module| session.modules.get(module));
                modules.filter_map(|module| module.functions.get(name).copied()).collect()
            })
            .unwrap_or_default();
        for function in functions {
            if let Some(found) = session.functions.get_mut(&function) {
                found.set.insert(which, value);
            }
        }
        Ok(())
    }

    fn cuKernelSetCacheConfig(handle: u64, config: u32, device: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        kernel(&session, handle)?;
        unless(config > 3, code::INVALID_VALUE, || format!("no cache configuration {config}"))
    }
}
