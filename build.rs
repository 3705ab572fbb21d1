//! Turns `kernels/*.cu` into PTX and writes the table of them that the runtime includes.
//!
//! With a CUDA toolkit the kernels are compiled for the targets in `MUSC_CUDA_ARCH` (default `75,80`); without one the
//! files in `kernels/prebuilt/` are taken. nvcc is looked for in `MUSC_NVCC`, `NVCC`, `CUDA_HOME` and `CUDA_PATH` (plus
//! `bin`), `PATH`, `/usr/local/cuda` and `/opt/cuda`, in this order; `MUSC_NVCC=none` hides it. The GPU is never asked.
//!
//! `OUT_DIR/kernels.rs` holds two items: `KERNEL_ORIGIN`, which compiler made the PTX, and `KERNELS`, a slice of
//! (stem, target, PTX text) sorted by stem, then target.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const DEFAULT_TARGETS: &str = "75,80";
const VARIABLES: [&str; 5] = ["MUSC_NVCC", "MUSC_CUDA_ARCH", "NVCC", "CUDA_HOME", "CUDA_PATH"];
const PREFIXES: [&str; 2] = ["/usr/local/cuda", "/opt/cuda"];

fn main() {
    if let Err(message) = run() {
        eprintln!("{message}");
        exit(1);
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    // Only what cargo packed has this file; there the goldens are not all here, and tests that need the others are ignored.
    println!("cargo::rustc-check-cfg=cfg(packaged)");
    if root.join(".cargo_vcs_info.json").is_file() {
        println!("cargo::rustc-cfg=packaged");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let kernels = root.join("kernels");
    // The folders too: a new or removed kernel or header changes the table.
    for folder in [kernels.clone(), kernels.join("common"), kernels.join("prebuilt")] {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let stems = stems(&kernels)?;
    let targets = targets(&env::var("MUSC_CUDA_ARCH").unwrap_or_else(|_| DEFAULT_TARGETS.into()))?;

    let (origin, folder) = match find_nvcc()? {
        Some(nvcc) => {
            let jobs: Vec<_> =
                stems.iter().flat_map(|s| targets.iter().map(move |t| (s, *t))).collect();
            compile(&nvcc, &root, &out, &jobs)?;
            (nvcc.display().to_string(), out.clone())
        }
        None => ("prebuilt".to_string(), kernels.join("prebuilt")),
    };

    let mut table = format!(
        "/// Which compiler made the PTX: the path of nvcc, or `prebuilt`.\n\
         pub const KERNEL_ORIGIN: &str = {origin:?};\n\
         /// Every kernel file: stem, target (75 for compute_75), PTX text.\n\
         pub static KERNELS: &[(&str, u32, &str)] = &[\n"
    );
    for stem in &stems {
        for target in &targets {
            let path = folder.join(format!("{stem}.compute_{target}.ptx"));
            if !path.is_file() {
                return Err(format!(
                    "no prebuilt PTX of kernel {stem} for compute_{target} ({}): prebuilt targets are \
                     {DEFAULT_TARGETS}; other targets in MUSC_CUDA_ARCH need a CUDA toolkit (set CUDA_HOME)",
                    path.display()
                ));
            }
            let path = path.display().to_string();
            writeln!(table, "    ({stem:?}, {target}, include_str!({path:?})),")
                .map_err(|e| e.to_string())?;
        }
    }
    table.push_str("];\n");
    write_if_changed(&out.join("kernels.rs"), &table)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// Names of the kernels: every `kernels/<stem>.cu`, sorted.
fn stems(kernels: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(kernels).map_err(|e| format!("{}: {e}", kernels.display()))?;
    let mut stems = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", kernels.display()))?.path();
        if path.extension().is_some_and(|e| e == "cu")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            stems.push(stem.to_string());
        }
    }
    stems.sort();
    Ok(stems)
}

/// Targets of a list like `75,80`, sorted, each once.
fn targets(list: &str) -> Result<Vec<u32>, String> {
    let mut targets = list
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| match t.parse::<u32>() {
            Ok(n) if n >= 75 => Ok(n),
            _ => Err(format!(
                "MUSC_CUDA_ARCH: found {t:?}, expected numbers from 75 on, like {DEFAULT_TARGETS}"
            )),
        })
        .collect::<Result<Vec<_>, _>>()?;
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(format!("MUSC_CUDA_ARCH: empty, expected numbers like {DEFAULT_TARGETS}"));
    }
    Ok(targets)
}

/// The nvcc to use, or none. A variable that names a file which is not there is an error, not a miss.
fn find_nvcc() -> Result<Option<PathBuf>, String> {
    let name = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
    for variable in ["MUSC_NVCC", "NVCC"] {
        let Some(value) = env::var_os(variable).filter(|v| !v.is_empty()) else { continue };
        if value == "none" {
            return Ok(None);
        }
        let path = PathBuf::from(value);
        return if path.is_file() {
            Ok(Some(path))
        } else {
            Err(format!(
                "{variable}: no such file: {}; `none` takes the prebuilt kernels",
                path.display()
            ))
        };
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|h| PathBuf::from(h).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        homes.chain(env::split_paths(&path)).chain(PREFIXES.map(|p| Path::new(p).join("bin")));
    Ok(folders.map(|f| f.join(name)).find(|p| p.is_file()))
}

/// Compiles every (stem, target) to `OUT_DIR/<stem>.compute_<target>.ptx`, one process a core at a time.
fn compile(nvcc: &Path, root: &Path, out: &Path, jobs: &[(&String, u32)]) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((stem, target)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            compile_one(nvcc, root, out, stem, *target)?;
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| Err("a thread that ran nvcc failed".to_string())))
            .collect()
    });
    results.into_iter().collect()
}

fn compile_one(
    nvcc: &Path,
    root: &Path,
    out: &Path,
    stem: &str,
    target: u32,
) -> Result<(), String> {
    let ptx = out.join(format!("{stem}.compute_{target}.ptx"));
    let source = format!("kernels/{stem}.cu");
    let run = Command::new(nvcc)
        .current_dir(root)
        .args(["-ptx", "-lineinfo", "-std=c++17", "-I", "kernels"])
        .arg(format!("-arch=compute_{target}"))
        .arg(&source)
        .arg("-o")
        .arg(&ptx)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", nvcc.display()))?;
    if !run.status.success() {
        return Err(format!(
            "{} could not compile {source} for compute_{target} (MUSC_NVCC=none takes the prebuilt kernels):\n{}{}",
            nvcc.display(),
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        ));
    }
    // Line information names files as the repository does, wherever it is checked out.
    let text = fs::read_to_string(&ptx).map_err(|e| format!("{}: {e}", ptx.display()))?;
    let text = text.replace(&format!("\"{}/", root.display()), "\"");
    fs::write(&ptx, text).map_err(|e| format!("{}: {e}", ptx.display()))
}

/// Writes aside, then renames, and only when the text differs, so that nothing is rebuilt without need.
fn write_if_changed(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let aside = path.with_extension("new");
    fs::write(&aside, text)
        .and_then(|()| fs::rename(&aside, path))
        .map_err(|e| format!("{}: {e}", path.display()))
}
