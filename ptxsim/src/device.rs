//! The device: its memory, and launches.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::DeviceConfig;
use crate::error::{Error, Result};
use crate::ir::{GLOBAL_BASE, ModuleData, PARAM_WINDOW, SHARED_WINDOW};
use crate::memory::global::Allocation;
use crate::memory::tags::{EPOCHS, Splits};

/// An address in device memory. Plain arithmetic on it is fine: accesses are checked.
pub type Ptr = u64;

/// Nothing lies in the first bytes after an allocation.
const GUARD: u64 = 1 << 20;
/// Alignment of allocations.
const ALIGN: u64 = 512;
/// Above the windows of shared, local and parameter memory.
const LOWEST: u64 = PARAM_WINDOW + (1 << 40);

#[derive(Debug, Default)]
struct State {
    allocations: BTreeMap<u64, Arc<Allocation>>,
    next: u64,
    /// No allocation ends behind it.
    end: u64,
    used: u64,
    epoch: u32,
    /// Addresses of module variables, by module.
    modules: HashMap<u64, Vec<u64>>,
}

/// A simulated device. It can be shared between threads; launches run one after another.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
    state: Mutex<State>,
    pub(crate) launching: Mutex<()>,
    pub(crate) splits: Splits,
    pub(crate) launches: AtomicU64,
    pub(crate) printed: Mutex<Vec<u8>>,
}

impl Device {
    /// A device with empty memory.
    pub fn new(config: DeviceConfig) -> Device {
        Device::with_addresses(config, GLOBAL_BASE, u64::MAX)
    }

    /// A device with empty memory whose addresses lie from `first` up to `end`. Several devices of one process get
    /// ranges apart, so that an address says whose it is and one device's pointer is out of bounds on another.
    ///
    /// Shared and local memory have their places below 0x400_0000_0000 in the generic space: `first` lies above.
    pub fn with_addresses(config: DeviceConfig, first: Ptr, end: Ptr) -> Device {
        let next = first.max(LOWEST).next_multiple_of(ALIGN);
        let state = State { next, end, ..State::default() };
        Device {
            config,
            state: Mutex::new(state),
            launching: Mutex::new(()),
            splits: Splits::default(),
            launches: AtomicU64::new(0),
            printed: Mutex::new(Vec::new()),
        }
    }

    /// What kernels have printed (`printf`) since this was last asked, launch by launch, the
    /// blocks of a launch in their running order.
    pub fn take_printed(&self) -> Vec<u8> {
        std::mem::take(&mut self.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What device it is.
    pub fn config(&self) -> &DeviceConfig {
        &self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in another thread leaves the maps whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of device memory in use.
    pub fn used_bytes(&self) -> u64 {
        self.state().used
    }

    /// Allocates device memory, aligned to 512 bytes. Its bytes count as never written. Zero
    /// bytes are allowed: the address is valid for nothing.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc(&self, bytes: u64) -> Result<Ptr> {
        self.alloc_named(bytes, "")
    }

    /// As [`alloc`](Device::alloc), with a name that errors use.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc_named(&self, bytes: u64, label: &str) -> Result<Ptr> {
        self.state().alloc(&self.config, bytes, label, false)
    }

    /// Sets addresses aside for an allocation of so many bytes that is made later, by [`alloc_at`](Device::alloc_at):
    /// what touches them before is out of bounds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the device has no such addresses left; memory in use is not looked at.
    pub fn reserve(&self, bytes: u64) -> Result<Ptr> {
        let mut s = self.state();
        let have = self.config.memory_bytes.saturating_sub(s.used);
        s.reserve(bytes, have)
    }

    /// Allocates device memory at an address that the caller chose: one set aside by [`reserve`](Device::reserve), or
    /// one outside the device's own range (memory that host and device address alike). Its bytes count as never written.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::HostAccess`] when the address is no multiple of 16, when it lies in the windows
    /// of shared and local memory, or when another allocation lies there.
    pub fn alloc_at(&self, ptr: Ptr, bytes: u64, label: &str) -> Result<()> {
        let mut s = self.state();
        let fail =
            |reason: &str| Err(Error::HostAccess { address: ptr, bytes, reason: reason.into() });
        let Some(end) = ptr.checked_add(bytes) else {
            return fail("the allocation would pass the end of all addresses");
        };
        if !ptr.is_multiple_of(16) {
            return fail("an allocation begins at a multiple of 16");
        }
        if ptr < LOWEST && end > SHARED_WINDOW {
            return fail("shared and local memory have these addresses");
        }
        let before = s.allocations.range(..end.max(ptr + 1)).next_back();
        if before.is_some_and(|(_, a)| a.end() > ptr || a.base == ptr) {
            return fail("another allocation lies there");
        }
        s.insert(&self.config, ptr, bytes, label, false)
    }

    /// Frees an allocation.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when no allocation starts there.
    pub fn free(&self, ptr: Ptr) -> Result<()> {
        let mut s = self.state();
        match s.allocations.remove(&ptr) {
            Some(a) => {
                s.used -= a.bytes;
                Ok(())
            }
            None => Err(Error::HostAccess {
                address: ptr,
                bytes: 0,
                reason: "no allocation starts here".into(),
            }),
        }
    }

    /// The allocation that holds a range, and the offset of the range in it.
    fn range(&self, ptr: Ptr, bytes: u64) -> Result<(Arc<Allocation>, u64)> {
        let s = self.state();
        let fail = |reason| Err(Error::HostAccess { address: ptr, bytes, reason });
        let Some((_, a)) = s.allocations.range(..=ptr).next_back() else {
            return fail("no allocation there".into());
        };
        match ptr.checked_add(bytes) {
            Some(end) if end <= a.end() => Ok((a.clone(), ptr - a.base)),
            _ => fail(a.describe(ptr.max(a.base + a.bytes))),
        }
    }

    /// Copies host bytes to the device.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when the range is not inside one allocation.
    pub fn write(&self, ptr: Ptr, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let (a, offset) = self.range(ptr, data.len() as u64)?;
        a.host_write(offset, data);
        Ok(())
    }

    /// Copies device bytes to the host; all of them must have been written.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when the range is not inside one allocation, or holds bytes that
    /// neither host nor kernel wrote.
    pub fn read(&self, ptr: Ptr, out: &mut [u8]) -> Result<()> {
        let bytes = out.len() as u64;
        match self.read_any(ptr, out)? {
            None => Ok(()),
            Some(at) => {
                let reason = format!("byte {at} of the allocation was never written");
                Err(Error::HostAccess { address: ptr, bytes, reason })
            }
        }
    }

    /// Copies device bytes to the host, written or not; the first unwritten one (as an offset
    /// in its allocation) is returned.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when the range is not inside one allocation.
    pub fn read_any(&self, ptr: Ptr, out: &mut [u8]) -> Result<Option<u64>> {
        if out.is_empty() {
            return Ok(None);
        }
        let (a, offset) = self.range(ptr, out.len() as u64)?;
        Ok(a.host_read(offset, out))
    }

    /// Fills device bytes.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when the range is not inside one allocation.
    pub fn memset(&self, ptr: Ptr, value: u8, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (a, offset) = self.range(ptr, bytes)?;
        let chunk = [value; 4096];
        let mut done = 0;
        while done < bytes {
            let n = (bytes - done).min(4096);
            a.host_write(offset + done, &chunk[..n as usize]);
            done += n;
        }
        Ok(())
    }

    /// Copies inside device memory; bytes never written stay so at the destination.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when a range is not inside one allocation.
    pub fn copy(&self, to: Ptr, from: Ptr, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (a, start) = self.range(from, bytes)?;
        let (b, offset) = self.range(to, bytes)?;
        b.host_copy(offset, &a, start, bytes);
        Ok(())
    }

    /// Copies into this device's memory from another one's; bytes never written stay so at the destination.
    ///
    /// # Errors
    /// [`Error::HostAccess`] when a range is not inside one allocation of its device.
    pub fn copy_from(&self, to: Ptr, source: &Device, from: Ptr, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (a, start) = source.range(from, bytes)?;
        let (b, offset) = self.range(to, bytes)?;
        b.host_copy(offset, &a, start, bytes);
        Ok(())
    }

    /// First address and bytes of the allocation that holds an address.
    pub fn holding(&self, ptr: Ptr) -> Option<(Ptr, u64)> {
        let s = self.state();
        let (_, a) = s.allocations.range(..=ptr).next_back()?;
        (ptr < a.end() || ptr == a.base).then_some((a.base, a.bytes))
    }

    /// Frees the variables that a module has on this device. A launch of it afterwards makes them anew.
    pub fn unload(&self, module: &crate::Module) {
        let mut s = self.state();
        for address in s.modules.remove(&module.data.id).unwrap_or_default() {
            if let Some(a) = s.allocations.remove(&address) {
                s.used -= a.bytes;
            }
        }
    }

    /// Bytes of the allocation that starts at an address.
    pub fn allocation_bytes(&self, ptr: Ptr) -> Option<u64> {
        self.state().allocations.get(&ptr).map(|a| a.bytes)
    }

    /// Puts a module's variables in memory, once; their addresses in order.
    pub(crate) fn load(&self, m: &ModuleData) -> Result<Vec<u64>> {
        let mut s = self.state();
        if let Some(a) = s.modules.get(&m.id) {
            return Ok(a.clone());
        }
        let mut addresses = Vec::with_capacity(m.variables.len());
        for v in &m.variables {
            if v.bytes == 0 {
                addresses.push(0);
                continue;
            }
            addresses.push(s.alloc(&self.config, v.bytes, &v.name, v.constant)?);
        }
        for (v, ptr) in m.variables.iter().zip(&addresses) {
            if let Some(a) = s.allocations.get(ptr) {
                let mut bytes = v.init.clone();
                bytes.resize(v.bytes as usize, 0);
                for r in &v.relocations {
                    let of = r.variable.and_then(|at| addresses.get(at as usize)).copied();
                    let address = of.unwrap_or(0).wrapping_add(r.add);
                    bytes[r.at..r.at + 8].copy_from_slice(&address.to_le_bytes());
                }
                a.host_write(0, &bytes);
            }
        }
        s.modules.insert(m.id, addresses.clone());
        Ok(addresses)
    }

    /// Address and bytes of a module's `.global` or `.const` variable.
    ///
    /// # Errors
    /// [`Error::NoEntry`] when the module has no such variable; [`Error::OutOfMemory`].
    pub fn variable(&self, module: &crate::Module, name: &str) -> Result<(Ptr, u64)> {
        let m = &module.data;
        let addresses = self.load(m)?;
        let found = m.variables.iter().zip(addresses).find(|(v, _)| v.name == name && v.bytes > 0);
        found.map(|(v, a)| (a, v.bytes)).ok_or_else(|| Error::NoEntry {
            module: m.name.clone(),
            name: name.to_string(),
            known: m.variables.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// What a launch needs: all allocations by address, and the number of its epoch.
    pub(crate) fn snapshot(&self) -> (Vec<Arc<Allocation>>, u32) {
        let mut s = self.state();
        s.epoch += 1;
        if s.epoch > EPOCHS {
            s.epoch = 1;
            s.allocations.values().for_each(|a| a.tags.forget_launches());
        }
        self.splits.clear();
        self.launches.fetch_add(1, Relaxed);
        (s.allocations.values().cloned().collect(), s.epoch)
    }
}

impl State {
    /// The next free addresses; `have` is for the error.
    fn reserve(&mut self, bytes: u64, have: u64) -> Result<Ptr> {
        let base = self.next;
        // Addresses may run out before a very large memory does.
        let next = base
            .checked_add(bytes)
            .and_then(|end| end.checked_add(GUARD))
            .and_then(|end| end.checked_next_multiple_of(ALIGN))
            .filter(|&next| next <= self.end);
        self.next = next.ok_or(Error::OutOfMemory { need: bytes, have })?;
        Ok(base)
    }

    fn insert(
        &mut self,
        config: &DeviceConfig,
        base: Ptr,
        bytes: u64,
        label: &str,
        constant: bool,
    ) -> Result<()> {
        let have = config.memory_bytes.saturating_sub(self.used);
        if bytes > have {
            return Err(Error::OutOfMemory { need: bytes, have });
        }
        // The simulator keeps the memory, and a shadow of it, on the host: that can be too small too.
        let a = Allocation::new(base, bytes, label.to_string(), constant)
            .ok_or(Error::OutOfMemory { need: bytes, have })?;
        self.used += bytes;
        self.allocations.insert(base, Arc::new(a));
        Ok(())
    }

    fn alloc(
        &mut self,
        config: &DeviceConfig,
        bytes: u64,
        label: &str,
        constant: bool,
    ) -> Result<Ptr> {
        let have = config.memory_bytes.saturating_sub(self.used);
        if bytes > have {
            return Err(Error::OutOfMemory { need: bytes, have });
        }
        let before = self.next;
        let base = self.reserve(bytes, have)?;
        self.insert(config, base, bytes, label, constant).inspect_err(|_| self.next = before)?;
        Ok(base)
    }
}
