//! Parses PTX files and lists their kernels: `entries a.ptx b.ptx`. Fails where the simulator does
//! not know one of them in full.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => {
                eprintln!("{path}: {e}");
                failed = true;
                continue;
            }
        };
        match ptxsim::Module::parse(&path, &text) {
            Err(e) => {
                eprintln!("{e}");
                failed = true;
            }
            Ok(m) => {
                for e in m.entries() {
                    println!(
                        "{path}: {} sm_{}, {} instructions, {} parameters, {} bytes of static \
                         shared memory, {} local, at most {:?} threads",
                        e.name,
                        m.target(),
                        e.instructions,
                        e.params.len(),
                        e.static_shared_bytes,
                        e.local_bytes,
                        e.max_threads
                    );
                }
                for (name, e) in m.refused() {
                    eprintln!("{name}: {e}");
                    failed = true;
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
