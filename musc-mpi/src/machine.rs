//! The part of a machine that is one process's: its card, and its share of the processors.

use musc::Result;
use musc::backend::cuda::driver::card;
use musc::backend::device::Device;
use musc_cli::team::Settings;

use crate::team::Team;

/// Gives a process its card and its threads, where nobody has named them.
pub fn settle(settings: &mut Settings, team: &Team) -> Result<()> {
    let local = team.on_this_host();
    let named = match settings.device() {
        Device::Cuda(cards) => cards.is_empty().then_some(true),
        Device::Auto => Some(false),
        _ => None,
    };
    if let Some(must) = named {
        match card::count() {
            Ok(cards) => settings.set_device(Device::Cuda(vec![local.rank() % cards])),
            Err(reason) if must => return Err(reason),
            Err(_) => settings.set_device(Device::Cpu),
        }
    }
    // Processes that mpirun binds to the same processors share them.
    let own = processors();
    let all = local.all_gather(&own);
    let share = all.iter().filter(|of| **of == own).count().max(1);
    let count: usize = own.iter().map(|byte| byte.count_ones() as usize).sum();
    let known = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if count > 0 { count } else { known };
    settings.set_usual_threads((count / share).max(1));
    Ok(())
}

/// The processors that this process may run on, a bit each; nothing where the system does not say.
#[cfg(target_os = "linux")]
fn processors() -> Vec<u8> {
    let mut set = [0u64; 128];
    // SAFETY: the kernel writes at most the size it is given, that of `set`, which lives and is plain numbers.
    let failed = unsafe {
        libc::sched_getaffinity(0, size_of_val(&set), set.as_mut_ptr().cast::<libc::cpu_set_t>())
    };
    if failed == 0 { bytemuck::cast_slice(&set).to_vec() } else { Vec::new() }
}

#[cfg(not(target_os = "linux"))]
fn processors() -> Vec<u8> {
    Vec::new()
}
