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

/// Reads an image: text that ends in a zero byte.
fn text(image: usize) -> Result<String, Fail> {
    let byte = |at: usize| In::<u8>::at_address(image).at(at);
    let first = byte(0)?;
    if first == 0x7f {
        return Err(fail(
            code::NO_BINARY_FOR_GPU,
            "the image is a cubin: machine code, which only a card runs; PTX is expected",
        ));
    }
    In::<u8>::at_address(image).text()
}

/// Loads an image. What is wrong with it goes to the error log, too.
pub(crate) fn load(
    driver: &Driver,
    label: &str,
    image: usize,
    logs: &Logs,
) -> Result<Arc<Module>, Fail> {
    let loaded = text(image).and_then(|text| parse(driver, label, &text));
    match &loaded {
        Ok(module) => {
            let entries = module.entries().len();
            let (major, minor) = module.version();
            let target = module.target();
            logs.write(
                &format!("{label}: PTX {major}.{minor} for sm_{target}, {entries} entries"),
                "",
            );
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
