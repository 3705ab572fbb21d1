//! How much memory the process took.

/// The most memory the process had in use so far, in bytes, where the system tells (Linux).
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_is_read_from_its_line() {
        assert_eq!(parse("VmPeak:\t  99 kB\nVmHWM:\t    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse("VmPeak:\t  99 kB\n"), None);
        assert_eq!(parse("VmHWM: many kB\n"), None);
    }
}
