//! The driver, its devices and its errors.

use super::{unless, unsupported};
use crate::code::{self, Code, fail};
use crate::driver::{Session, driver, start};
use crate::options::Options;
use crate::raw::{In, Out, Text, put_text};

/// Attributes of a device, by their numbers (`CUdevice_attribute`). What the simulator has no notion of, as caches,
/// clocks and buses, is a documented fiction: values of a common card.
fn attribute(
    options: &Options,
    config: &ptxsim::DeviceConfig,
    which: i32,
    card: usize,
) -> Option<i32> {
    let cc = config.compute_capability as i32;
    let warps = config.warps_per_multiprocessor as i32;
    Some(match which {
        1 => config.threads_per_block as i32, // threads of a block
        2 | 3 => 1024,                        // block x, y
        4 => 64,                              // block z
        5 => i32::MAX,                        // grid x
        6 | 7 => 65535,                       // grid y, z
        8 => ptxsim::SHARED_BYTES_WITHOUT_OPT_IN as i32,
        9 => 65536,       // constant memory
        10 => 32,         // lanes of a warp
        11 => i32::MAX,   // pitch
        12 | 82 => 65536, // registers of a block, of a multiprocessor
        13 => 1_000_000,  // clock, kHz
        14 => 512,        // alignment of textures
        15 | 40 => 2,     // overlap, copy engines
        16 => config.multiprocessors as i32,
        17 => 0,               // no limit on the time of a kernel
        18 => 0,               // discrete
        19 => 1,               // can map host memory
        20 => 0,               // compute mode: default
        21..=29 => 16384,      // textures: none in fact
        30 => 512,             // alignment of surfaces
        31 => 1,               // kernels side by side
        32 => 0,               // ECC
        33 => card as i32 + 1, // bus
        34 | 50 => 0,          // device on it, domain
        35 => 0,               // TCC
        36 => 1_000_000,       // memory clock, kHz
        37 => 256,             // memory bus, bits
        38 => 4 << 20,         // L2 cache
        39 => warps * 32,      // threads of a multiprocessor
        41 => 1,               // unified addresses
        75 => cc / 10,
        76 => cc % 10,
        78 => 1,      // stream priorities
        79 | 80 => 1, // L1 caches
        81 => config.shared_bytes_per_multiprocessor as i32,
        83 => 1,      // managed memory
        84 | 85 => 0, // multi-GPU board
        86 => 0,      // host atomics
        87 => 32,     // single to double speed
        88 => 0,      // pageable memory access
        89 => 1,      // concurrent managed access
        90 => 0,      // preemption
        91 => 1,      // registered host memory has one address
        95 => 0,      // cooperative launch
        97 => config.shared_bytes_per_block as i32,
        98..=101 => 0,
        102 => 0,             // virtual memory management
        106 => 16.min(warps), // blocks of a multiprocessor
        111 => 1024,          // shared memory the system keeps of a block
        115 => i32::from(options.pools),
        // Later ones and features that are not here.
        42..=74 | 77 | 92..=94 | 96 | 103..=105 | 107..=110 | 112..=114 | 116..=150 => 0,
        _ => return None,
    })
}

api! {
    fn cuInit(flags: u32) {
        unless(flags != 0, code::INVALID_VALUE, || format!("flags {flags:#x}, expected 0"))?;
        start()
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.put(driver()?.options.version as i32)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        let session = Session::open()?;
        count.put(session.driver.cards.len() as i32)
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        let session = Session::open()?;
        let card = session.driver.card(ordinal)?;
        device.put(card as i32)
    }

    fn cuDeviceGetName(name: Out<u8>, room: i32, device: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        name.needed()?;
        unless(room <= 0, code::INVALID_VALUE, || format!("room for {room} bytes of a name"))?;
        let cc = session.driver.options.compute_capability;
        put_text(name, room as usize, &format!("ptxsim sm_{cc}"));
        Ok(())
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) {
        let card = Session::open()?.driver.card(device)?;
        uuid.put(uuid_of(card))
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        let card = Session::open()?.driver.card(device)?;
        uuid.put(uuid_of(card))
    }

    fn cuDeviceGetLuid(_luid: Out<u8>, _mask: Out<u32>, device: i32) {
        Session::open()?.driver.card(device)?;
        Err(unsupported("a LUID, which Windows has,"))
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        bytes.put(session.driver.options.memory_bytes as usize)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, which: i32, device: i32) {
        let session = Session::open()?;
        let card = session.driver.card(device)?;
        let found = attribute(&session.driver.options, session.driver.cards[card].config(), which, card);
        value.put(found.ok_or_else(|| fail(code::INVALID_VALUE, format!("no device attribute {which}")))?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        let cc = session.driver.options.compute_capability as i32;
        major.put(cc / 10)?;
        minor.put(cc % 10)
    }

    /// Eight sizes of `CUdevprop`: threads of a block, its sides, the grid's sides, shared and constant bytes, lanes,
    /// pitch, registers, clock, alignment.
    fn cuDeviceGetProperties(properties: Out<[i32; 14]>, device: i32) {
        let session = Session::open()?;
        let card = session.driver.card(device)?;
        let at = |which| {
            attribute(&session.driver.options, session.driver.cards[card].config(), which, card).unwrap_or(0)
        };
        properties.put([
            at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13), at(14),
        ])
    }

    fn cuDeviceGetPCIBusId(id: Out<u8>, room: i32, device: i32) {
        let card = Session::open()?.driver.card(device)?;
        id.needed()?;
        unless(room <= 0, code::INVALID_VALUE, || format!("room for {room} bytes of a bus id"))?;
        put_text(id, room as usize, &format!("0000:{:02X}:00.0", card + 1));
        Ok(())
    }

    fn cuDeviceGetByPCIBusId(device: Out<i32>, id: Text) {
        let session = Session::open()?;
        let id = id.get()?;
        let parts: Vec<&str> = id.split([':', '.']).collect();
        let bus = match parts[..] {
            [_, bus, _, _] | [bus, _, _] => u32::from_str_radix(bus, 16).ok(),
            _ => None,
        };
        let card = bus.and_then(|bus| bus.checked_sub(1)).filter(|&card| (card as usize) < session.driver.cards.len());
        device.put(card.ok_or_else(|| fail(code::INVALID_DEVICE, format!("no device at `{id}`")))? as i32)
    }

    /// Kernels of one simulated card do not reach another's memory; copies between cards need no access.
    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        let session = Session::open()?;
        session.driver.card(device)?;
        session.driver.card(peer)?;
        can.put(0)
    }

    fn cuDeviceGetP2PAttribute(value: Out<i32>, _which: i32, device: i32, peer: i32) {
        let session = Session::open()?;
        let (a, b) = (session.driver.card(device)?, session.driver.card(peer)?);
        unless(a == b, code::INVALID_DEVICE, || format!("card {a} twice"))?;
        value.put(0)
    }

    fn cuDeviceGetExecAffinitySupport(value: Out<i32>, _which: i32, device: i32) {
        Session::open()?.driver.card(device)?;
        value.put(0)
    }

    fn cuGetErrorName(error: u32, text: Out<usize>) {
        let found = Code(error).name();
        text.put(found.map_or(0, |text| text.as_ptr() as usize))?;
        found.map(|_| ()).ok_or_else(|| code::INVALID_VALUE.into())
    }

    fn cuGetErrorString(error: u32, text: Out<usize>) {
        let found = Code(error).text();
        text.put(found.map_or(0, |text| text.as_ptr() as usize))?;
        found.map(|_| ()).ok_or_else(|| code::INVALID_VALUE.into())
    }

    /// Tables that NVIDIA's own runtime asks for; there are none here.
    fn cuGetExportTable(table: Out<usize>, _id: In<u8>) {
        table.put_if(0);
        Err(unsupported("an export table: NVIDIA's runtime library (libcudart) runs on NVIDIA's driver alone; it"))
    }
}

fn uuid_of(card: usize) -> [u8; 16] {
    let mut uuid = *b"ptxsim-card-0000";
    uuid[15] += card as u8;
    uuid
}
