//! The driver's stand-in for processes that tests start.

/// A folder with the driver API on the simulator (`ptxsim-cuda`) under NVIDIA's names, for `LD_LIBRARY_PATH`. Cargo builds the
/// library beside the tests of every package that has it among its dependencies for tests.
pub fn stand_in() -> tempfile::TempDir {
    let library = std::env::current_exe().expect("this test").with_file_name("libptxsim_cuda.so");
    assert!(library.is_file(), "{}: cargo builds it with the tests", library.display());
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).expect("a link");
    }
    folder
}
