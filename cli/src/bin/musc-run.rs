//! The program `musc-run`: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    musc_cli::run_main()
}
