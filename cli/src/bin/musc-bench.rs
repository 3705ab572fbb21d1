//! The program `musc-bench`: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    musc_cli::bench_main()
}
