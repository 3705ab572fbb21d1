//! The driver's result codes (`CUresult`), and which of them an error of the simulator is.

use ptxsim::Error;

macro_rules! codes {
    ($($name:ident = $value:literal, $full:literal, $text:literal;)*) => {
        $(#[allow(dead_code, reason = "the table has codes that only programs ask about")] pub(crate) const $name: Code = Code($value);)*
        /// Code, name and sentence, each with a zero byte.
        const TABLE: &[(u32, &str, &str)] = &[$(($value, concat!($full, "\0"), concat!($text, "\0"))),*];
    };
}

/// A `CUresult` that is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub u32);

codes! {
    SUCCESS = 0, "CUDA_SUCCESS", "no error";
    INVALID_VALUE = 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument";
    OUT_OF_MEMORY = 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory";
    NOT_INITIALIZED = 3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error";
    DEINITIALIZED = 4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down";
    STUB_LIBRARY = 34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library";
    NO_DEVICE = 100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected";
    INVALID_DEVICE = 101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal";
    INVALID_IMAGE = 200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid";
    INVALID_CONTEXT = 201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context";
    NO_BINARY_FOR_GPU = 209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device";
    ECC_UNCORRECTABLE = 214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered";
    UNSUPPORTED_LIMIT = 215, "CUDA_ERROR_UNSUPPORTED_LIMIT", "limit is not supported on this architecture";
    PEER_ACCESS_UNSUPPORTED = 217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "peer access is not supported between these two devices";
    INVALID_PTX = 218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION = 222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain.";
    INVALID_SOURCE = 300, "CUDA_ERROR_INVALID_SOURCE", "device kernel image is invalid";
    FILE_NOT_FOUND = 301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found";
    OPERATING_SYSTEM = 304, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS";
    INVALID_HANDLE = 400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle";
    NOT_FOUND = 500, "CUDA_ERROR_NOT_FOUND", "named symbol not found";
    NOT_READY = 600, "CUDA_ERROR_NOT_READY", "device not ready";
    ILLEGAL_ADDRESS = 700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch";
    LAUNCH_TIMEOUT = 702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated";
    PEER_ACCESS_ALREADY_ENABLED = 704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled";
    PEER_ACCESS_NOT_ENABLED = 705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled";
    PRIMARY_CONTEXT_ACTIVE = 708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", "cannot set while device is active in this process";
    CONTEXT_IS_DESTROYED = 709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed";
    ASSERT = 710, "CUDA_ERROR_ASSERT", "device-side assert triggered";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped";
    HOST_MEMORY_NOT_REGISTERED = 713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region";
    ILLEGAL_INSTRUCTION = 715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered";
    MISALIGNED_ADDRESS = 716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address";
    LAUNCH_FAILED = 719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch";
    NOT_PERMITTED = 800, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted";
    NOT_SUPPORTED = 801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing";
    INVALID_RESOURCE_TYPE = 914, "CUDA_ERROR_INVALID_RESOURCE_TYPE", "invalid resource type";
    UNKNOWN = 999, "CUDA_ERROR_UNKNOWN", "unknown error";
}

impl Code {
    /// The name, with a zero byte at its end; `None` for a code that is not in the table.
    pub fn name(self) -> Option<&'static str> {
        TABLE.iter().find(|row| row.0 == self.0).map(|row| row.1)
    }

    /// The sentence, with a zero byte at its end.
    pub fn text(self) -> Option<&'static str> {
        TABLE.iter().find(|row| row.0 == self.0).map(|row| row.2)
    }

    /// The name for messages.
    pub fn label(self) -> &'static str {
        self.name().map_or("?", |name| name.trim_end_matches('\0'))
    }
}

/// A call that did not succeed: what it returns, and what is said of it on standard error.
#[derive(Debug, Clone)]
pub(crate) struct Fail {
    pub code: Code,
    pub said: Option<String>,
}

impl From<Code> for Fail {
    fn from(code: Code) -> Fail {
        Fail { code, said: None }
    }
}

/// A failure with a sentence.
pub(crate) fn fail(code: Code, said: impl Into<String>) -> Fail {
    Fail { code, said: Some(said.into()) }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        fail(of(&error), error.to_string())
    }
}

/// What a driver returns for it. What a card lets pass (races, reads of memory nobody wrote, missing waits, divergence)
/// is a failed launch here.
pub(crate) fn of(error: &Error) -> Code {
    match error {
        Error::Parse { .. }
        | Error::UnknownDirective { .. }
        | Error::UnknownInstruction { .. }
        | Error::InstructionNotOnTarget { .. } => INVALID_PTX,
        Error::TargetTooNew { .. } => NO_BINARY_FOR_GPU,
        Error::NoEntry { .. } => NOT_FOUND,
        Error::ParamCount { .. }
        | Error::ParamSize { .. }
        | Error::LaunchShape { .. }
        | Error::RequiredBlock { .. }
        | Error::SharedMemory { .. }
        | Error::HostAccess { .. } => INVALID_VALUE,
        Error::OutOfMemory { .. } => OUT_OF_MEMORY,
        Error::OutOfBounds { .. } | Error::ReadOnly { .. } => ILLEGAL_ADDRESS,
        Error::Misaligned { .. } => MISALIGNED_ADDRESS,
        Error::Assertion { .. } => ASSERT,
        Error::Trap { .. } => ILLEGAL_INSTRUCTION,
        Error::Deadlock { .. } | Error::InstructionLimit { .. } => LAUNCH_TIMEOUT,
        _ => LAUNCH_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(TABLE[at + 1..].iter().all(|other| other.0 != row.0), "{}", row.1);
            assert!(row.1.ends_with('\0') && row.2.ends_with('\0'));
        }
        assert_eq!(Code(719).label(), "CUDA_ERROR_LAUNCH_FAILED");
        assert_eq!(Code(12345).name(), None);
    }
}
