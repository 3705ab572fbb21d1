//! The programs `musc-run` and `musc-bench` as their users meet them: arguments in, files and exit code out.

mod bad_input;
mod banks;
mod bench;
mod doctor;
mod driver;
mod hand_off;
mod hub;
mod precision;
mod regions;
mod report;
mod runs;
#[path = "../../../tests/hub/server.rs"]
mod server;
mod sets;
mod shards;
mod stages;
#[cfg(target_os = "linux")]
#[path = "../../../tests/common/driver.rs"]
mod stand_in;
mod support;
mod weights;
