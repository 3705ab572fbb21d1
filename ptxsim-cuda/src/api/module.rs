//! Modules.

use std::collections::HashMap;
use std::sync::Arc;

use super::unless;
use crate::code::{self, Fail, fail};
use crate::driver::{Function, Kind, Loaded, Session};
use crate::image::{self, Logs};
use crate::raw::{In, Out, Text};
use crate::work::Work;

/// Loads an image in the current context.
fn load(module: Out<u64>, label: Option<String>, image: usize, logs: &Logs) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let context = session.current()?;
    module.needed()?;
    unless(image == 0, code::INVALID_VALUE, || "the image is null".into())?;
    let handle = session.handle(Kind::Module);
    let label = label.unwrap_or_else(|| format!("module {}", handle >> 4 & 0xffff_ffff));
    // Parsing takes long, and touches nothing of the driver's.
    let loaded = session.unlocked(|driver| image::load(driver, &label, image, logs))?;
    session.healthy(context)?;
    session
        .modules
        .insert(handle, Loaded { context, module: loaded, library: 0, functions: HashMap::new() });
    module.put(handle)
}

/// Lets go of a module, of which nothing is in flight any more.
pub(super) fn unload(session: &mut Session, handle: u64) -> Result<(), Fail> {
    let context = session.loaded(handle)?.context;
    session.healthy(context)?;
    let mut waiting = Vec::new();
    for (stream, queue) in &session.streams {
        waiting.extend(queue.waiting.iter().filter_map(|piece| match &piece.work {
            Work::Launch(launch) if launch.module_handle == handle => {
                Some(format!("`{}` on stream {stream:#x}", launch.kernel))
            }
            _ => None,
        }));
    }
    waiting.sort_unstable();
    if !waiting.is_empty() {
        let said = format!(
            "{} is unloaded while {} of its launches have not run: {}",
            session.loaded(handle)?.module.name(),
            waiting.len(),
            waiting.join(", ")
        );
        if session.driver.options.unload_is_fault {
            session.fault(context, code::LAUNCH_FAILED, &said);
            return Err(code::LAUNCH_FAILED.into());
        }
        crate::report::warn(session, said);
    }
    let card = session.context(context)?.card;
    session.drain_card(card);
    session.healthy(context)?;
    if let Some(loaded) = session.modules.remove(&handle) {
        session.functions.retain(|_, function| function.module_handle != handle);
        session.driver.cards[card].unload(&loaded.module);
    }
    Ok(())
}

/// The function of an entry.
pub(super) fn function(session: &mut Session, module: u64, name: &str) -> Result<u64, Fail> {
    let loaded = session.loaded(module)?;
    let context = loaded.context;
    session.healthy(context)?;
    if let Some(&known) = loaded.functions.get(name) {
        return Ok(known);
    }
    let entry = Arc::new(loaded.module.entry(name)?);
    let found = Function {
        context,
        module_handle: module,
        module: Arc::clone(&loaded.module),
        name: Arc::new(std::ffi::CString::new(name).unwrap_or_default()),
        entry,
        set: HashMap::new(),
    };
    let handle = session.handle(Kind::Function);
    session.functions.insert(handle, found);
    if let Some(loaded) = session.modules.get_mut(&module) {
        loaded.functions.insert(name.to_string(), handle);
    }
    Ok(handle)
}

/// Address and bytes of a variable.
pub(super) fn variable(session: &Session, module: u64, name: &str) -> Result<(u64, u64), Fail> {
    let loaded = session.loaded(module)?;
    session.healthy(loaded.context)?;
    let card = session.context(loaded.context)?.card;
    Ok(session.driver.cards[card].variable(&loaded.module, name)?)
}

api! {
    fn cuModuleLoadData(module: Out<u64>, image: usize) {
        load(module, None, image, &Logs::default())
    }

    fn cuModuleLoadDataEx(module: Out<u64>, image: usize, count: u32, options: In<u32>, values: In<usize>) {
        load(module, None, image, &Logs::read(count, options, values)?)
    }

    fn cuModuleLoadFatBinary(module: Out<u64>, image: usize) {
        load(module, None, image, &Logs::default())
    }

    fn cuModuleLoad(module: Out<u64>, path: Text) {
        Session::open()?.current()?;
        let path = path.get()?;
        let bytes = image::read_file(&path)?;
        load(module, Some(path), bytes.as_ptr() as usize, &Logs::default())
    }

    /// A card's driver waits for what is in flight, and nothing says that it does: see the switch `UNLOAD`.
    fn cuModuleUnload(module: u64) {
        let mut session = Session::open()?;
        session.current()?;
        unless(session.loaded(module)?.library != 0, code::NOT_PERMITTED, || "a library's module ends with the library".into())?;
        unload(&mut session, module)
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        mode.put(1)
    }

    fn cuModuleGetFunction(to: Out<u64>, module: u64, name: Text) {
        let mut session = Session::open()?;
        session.current()?;
        to.needed()?;
        let name = name.get()?;
        to.put(function(&mut session, module, &name)?)
    }

    fn cuModuleGetFunctionCount(count: Out<u32>, module: u64) {
        let session = Session::open()?;
        count.put(session.loaded(module)?.module.entries().len() as u32)
    }

    fn cuModuleEnumerateFunctions(to: Out<u64>, room: u32, module: u64) {
        let mut session = Session::open()?;
        to.needed()?;
        let entries = session.loaded(module)?.module.entries();
        for (at, entry) in entries.iter().take(room as usize).enumerate() {
            let handle = function(&mut session, module, &entry.name)?;
            to.put_at(at, handle);
        }
        Ok(())
    }

    fn cuModuleGetGlobal_v2(at: Out<u64>, bytes: Out<usize>, module: u64, name: Text) {
        let session = Session::open()?;
        session.current()?;
        unless(at.is_null() && bytes.is_null(), code::INVALID_VALUE, || "both results are null".into())?;
        let (address, size) = variable(&session, module, &name.get()?)?;
        at.put_if(address);
        bytes.put_if(size as usize);
        Ok(())
    }

    fn cuModuleGetTexRef(_to: Out<u64>, _module: u64, name: Text) {
        Err(fail(code::NOT_FOUND, format!("no texture reference `{}`: textures are not simulated", name.get()?)))
    }

    fn cuModuleGetSurfRef(_to: Out<u64>, _module: u64, name: Text) {
        Err(fail(code::NOT_FOUND, format!("no surface reference `{}`: surfaces are not simulated", name.get()?)))
    }
}
