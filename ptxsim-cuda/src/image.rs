//! Modules from what programs hand over: PTX text, and the options and logs of loading it.

use std::sync::Arc;

use ptxsim::Module;

use crate::code::{self, Code, Fail, fail};
use crate::driver::Driver;
use crate::raw::{self, In};

/// The options of `cuModuleLoadDataEx` and `cuLibraryLoadData`, by their numbers.
mod option {
    pub const WALL_TIME: u32 = 2;
    pub const INFO_LOG: u32 = 3;
    pub const INFO_LOG_BYTES: u32 = 4;
    pub const ERROR_LOG: u32 = 5;
    pub const ERROR_LOG_BYTES: u32 = 6;
}

/// Where the logs of a load go. All fields are addresses and sizes as the caller gave them.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    info: (usize, usize),
    error: (usize, usize),
    values: usize,
    /// Positions of the two sizes in the list, which are written over with what was used.
    sizes: [Option<usize>; 2],
    times: Option<usize>,
}

impl Logs {
    /// From lists of options and of their values.
    pub fn read(count: u32, options: In<u32>, values: In<usize>) -> Result<Logs, Fail> {
        let mut logs = Logs { values: values.address(), ..Logs::default() };
        for at in 0..count as usize {
            let value = values.at(at)?;
            match options.at(at)? {
                option::INFO_LOG => logs.info.0 = value,
                option::INFO_LOG_BYTES => {
                    logs.info.1 = value & 0xffff_ffff;
                    logs.sizes[0] = Some(at);
                }
                option::ERROR_LOG => logs.error.0 = value,
                option::ERROR_LOG_BYTES => {
                    logs.error.1 = value & 0xffff_ffff;
                    logs.sizes[1] = Some(at);
                }
                option::WALL_TIME => logs.times = Some(at),
                _ => {}
            }
        }
        Ok(logs)
    }

    /// Writes both logs and what they used.
    fn write(&self, info: &str, error: &str) {
        for (text, (address, room), size) in
            [(info, self.info, self.sizes[0]), (error, self.error, self.sizes[1])]
        {
            // SAFETY: the caller gave the buffer with its size.
            let used =
                if room > 0 { unsafe { raw::put_text_at_address(address, room, text) } } else { 0 };
            if let Some(at) = size {
                // SAFETY: the list of values has an entry for each option; the documentation has it written over.
                unsafe { raw::put_at_address(self.values + at * size_of::<usize>(), used) }
            }
        }
        if let Some(at) = self.times {
            // SAFETY: as above; the value is a float in the place of the pointer. Loading takes no simulated time.
            unsafe { raw::put_at_address(self.values + at * size_of::<usize>(), 0f32) }
        }
    }
}

/// The CUDA version, as 12040, that first knew a PTX version (PTX ISA manual, release notes).
pub(crate) fn cuda_version_of_ptx((major, minor): (u32, u32)) -> u32 {
    let (a, b) = match (major, minor) {
        (0..=5, _) => (9, 0),
        (6, 3) => (10, 0),
        (6, 4) => (10, 1),
        (6, 5) => (10, 2),
        (6, _) => (9, 2),
        (7, minor) => (11, minor),
        (8, minor @ 0..=5) => (12, minor),
        (8, 6) => (12, 7),
        (8, 7) => (12, 8),
        (8, _) => (12, 9),
        (9, minor) => (13, minor),
        _ => (major + 4, 0),
    };
    a * 1000 + b * 10
}

/// Of the struct that nvcc wraps a fat binary in: the pointer to it is at byte 8.
const WRAPPER: u32 = 0x4662_43b1;
/// Of a fat binary.
const FAT: u32 = 0xba55_ed50;

/// Reads an image: text that ends in a zero byte, or the PTX of a fat binary.
fn text(image: usize, compute_capability: u32) -> Result<String, Fail> {
    let byte = In::<u8>::at_address(image).at(0)?;
    if byte == 0x7f {
        return Err(fail(
            code::NO_BINARY_FOR_GPU,
            "the image is a cubin: machine code, which only a card runs; PTX is expected",
        ));
    }
    // The first byte of a fat binary is none of text.
    if !byte.is_ascii() {
        // SAFETY: of all reads here: a program's image is as long as its own headers say.
        let magic = unsafe { raw::get_at_address::<u32>(image)? };
        if magic == WRAPPER {
            // SAFETY: as above.
            return fat(unsafe { raw::get_at_address::<usize>(image + 8)? }, compute_capability);
        }
        if magic == FAT {
            return fat(image, compute_capability);
        }
        return Err(fail(
            code::INVALID_IMAGE,
            format!("the image begins with {magic:#010x}: neither PTX nor a fat binary"),
        ));
    }
    In::<u8>::at_address(image).text()
}

/// The PTX of a fat binary for the newest target that the device has.
///
/// Its header has 16 bytes: magic, version (16 bits), its own length (16 bits), the length of what follows (64 bits). Then
/// come the images, each with a header: kind (16 bits; 1 is PTX), two bytes, its own length (32 bits), the length of the
/// image (64 bits), at byte 28 the target (32 bits), at byte 40 flags (64 bits; 0x2000 and 0x8000: compressed).
fn fat(image: usize, compute_capability: u32) -> Result<String, Fail> {
    // SAFETY: as in `text`.
    let word = |at: usize| unsafe { raw::get_at_address::<u32>(at) };
    // SAFETY: as in `text`.
    let half = |at: usize| unsafe { raw::get_at_address::<u16>(at).map(usize::from) };
    // SAFETY: as in `text`.
    let long = |at: usize| unsafe { raw::get_at_address::<u64>(at).map(|long| long as usize) };
    if word(image)? != FAT {
        return Err(fail(
            code::INVALID_IMAGE,
            format!("a fat binary begins with {:#010x}, expected {FAT:#010x}", word(image)?),
        ));
    }
    let damaged = || fail(code::INVALID_IMAGE, "a fat binary whose lengths do not fit each other");
    let mut at = image.checked_add(half(image + 6)?).ok_or_else(damaged)?;
    let end = at.checked_add(long(image + 8)?).ok_or_else(damaged)?;
    let mut best: Option<(u32, usize, usize)> = None;
    let mut others = Vec::new();
    while at < end {
        let (kind, header, bytes) = (half(at)?, word(at + 4)? as usize, long(at + 8)?);
        let (target, flags) = (word(at + 28)?, long(at + 40)?);
        let next = at
            .checked_add(header)
            .and_then(|next| next.checked_add(bytes))
            .filter(|&next| next <= end);
        let next = next.filter(|_| header >= 48).ok_or_else(damaged)?;
        if kind != 1 {
            others.push(format!("machine code for sm_{target}"));
        } else if flags & 0xa000 != 0 {
            others.push(format!(
                "compressed PTX for sm_{target} (nvcc -Xfatbin -no-compress leaves it as it is)"
            ));
        } else if target > compute_capability {
            others.push(format!("PTX for sm_{target}"));
        } else if best.is_none_or(|best| best.0 < target) {
            best = Some((target, at + header, bytes));
        }
        at = next;
    }
    let (_, from, bytes) = best.ok_or_else(|| {
        fail(
            code::NO_BINARY_FOR_GPU,
            format!("the fat binary has no PTX for sm_{compute_capability} that can be read; it has: {}", others.join(", ")),
        )
    })?;
    // SAFETY: within the image, as its headers say.
    let bytes = unsafe { raw::HostAddress(from).bytes(0, bytes) };
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Loads an image. What is wrong with it goes to the error log, too.
pub(crate) fn load(
    driver: &Driver,
    label: &str,
    image: usize,
    logs: &Logs,
) -> Result<Arc<Module>, Fail> {
    let loaded =
        text(image, driver.options.compute_capability).and_then(|text| parse(driver, label, &text));
    match &loaded {
        Ok(module) => {
            let entries = module.entries().len();
            let (major, minor) = module.version();
            let target = module.target();
            let mut info =
                format!("{label}: PTX {major}.{minor} for sm_{target}, {entries} entries");
            for (name, why) in module.refused() {
                info.push_str(&format!("\nentry `{name}` cannot run: {why}"));
            }
            logs.write(&info, "");
        }
        Err(failed) => logs.write("", failed.said.as_deref().unwrap_or_default()),
    }
    loaded.map(Arc::new)
}

fn parse(driver: &Driver, label: &str, text: &str) -> Result<Module, Fail> {
    let options = &driver.options;
    // Before the text is read as a whole: a newer version may well have what is unknown here.
    if let Some(version) = ptx_version(text) {
        let needs = cuda_version_of_ptx(version);
        if needs > options.version {
            return Err(fail(
                code::UNSUPPORTED_PTX_VERSION,
                format!(
                    "{label}: PTX {}.{} is of CUDA {}.{}, the driver is of CUDA {}.{}",
                    version.0,
                    version.1,
                    needs / 1000,
                    needs % 1000 / 10,
                    options.version / 1000,
                    options.version % 1000 / 10
                ),
            ));
        }
    }
    let module = Module::parse(label, text)?;
    // One that cannot run is told when it is asked for; where none can, the module is refused.
    if module.entries().is_empty()
        && let Some((_, why)) = module.refused().into_iter().next()
    {
        return Err(why.into());
    }
    if module.target() > options.compute_capability {
        let (target, have) = (module.target(), options.compute_capability);
        return Err(fail(
            code::NO_BINARY_FOR_GPU,
            format!("{label} targets sm_{target}, the device is sm_{have}"),
        ));
    }
    Ok(module)
}

/// The `.version` of PTX text.
fn ptx_version(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    let digits =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(major)?, digits(minor)?))
}

/// Reads a file as an image.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Fail> {
    let mut bytes = std::fs::read(path).map_err(|error| {
        let code: Code = if error.kind() == std::io::ErrorKind::NotFound {
            code::FILE_NOT_FOUND
        } else {
            code::OPERATING_SYSTEM
        };
        fail(code, format!("{path}: {error}"))
    })?;
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_ptx_and_driver() {
        assert_eq!(cuda_version_of_ptx((8, 4)), 12040);
        assert_eq!(cuda_version_of_ptx((9, 0)), 13000);
        assert_eq!(cuda_version_of_ptx((7, 8)), 11080);
        assert_eq!(ptx_version("//\n.version 8.4 \n.target sm_80"), Some((8, 4)));
        assert_eq!(ptx_version("nothing"), None);
    }
}
