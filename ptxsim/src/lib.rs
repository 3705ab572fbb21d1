//! ptxsim runs CUDA kernels, as PTX text, without a GPU, and is stricter than a GPU: races,
//! missing waits, reads of memory nobody wrote and accesses outside an allocation are errors
//! with a line. It knows PTX and nothing of any program that uses it.
//!
//! ```
//! use ptxsim::{Arg, Device, DeviceConfig, LaunchConfig, Module};
//! # fn main() -> ptxsim::Result<()> {
//!
//! let ptx = "
//! .version 7.0
//! .target sm_75
//! .address_size 64
//! .visible .entry add_one(.param .u64 data, .param .u32 n)
//! {
//!     .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<5>;
//!     ld.param.u64 %rd1, [data];
//!     ld.param.u32 %r1, [n];
//!     mov.u32 %r2, %ctaid.x;
//!     mov.u32 %r3, %ntid.x;
//!     mov.u32 %r4, %tid.x;
//!     mad.lo.s32 %r5, %r2, %r3, %r4;
//!     setp.ge.u32 %p1, %r5, %r1;
//!     @%p1 bra done;
//!     cvta.to.global.u64 %rd2, %rd1;
//!     mul.wide.u32 %rd3, %r5, 4;
//!     add.s64 %rd4, %rd2, %rd3;
//!     ld.global.u32 %r2, [%rd4];
//!     add.s32 %r2, %r2, 1;
//!     st.global.u32 [%rd4], %r2;
//! done:
//!     ret;
//! }";
//! let module = Module::parse("add_one.ptx", ptx)?;
//! let device = Device::new(DeviceConfig::new(80));
//! let data = device.alloc(4 * 100)?;
//! device.write(data, &[0; 400])?;
//! let counters = device.launch(
//!     &module,
//!     "add_one",
//!     LaunchConfig::linear(2, 64),
//!     &[Arg::from(data), Arg::from(100u32)],
//! )?;
//! let mut out = [0; 400];
//! device.read(data, &mut out)?;
//! assert!(out.chunks(4).all(|c| c == [1, 0, 0, 0]));
//! assert_eq!(counters.total().sector_efficiency(), Some(1.0));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod config;
mod counters;
mod decode;
mod device;
mod error;
mod exec;
mod fault;
mod ir;
mod launch;
mod memory;
mod module;
mod num;
mod num64;
mod parse;

pub use config::{DeviceConfig, LaunchConfig, MmaSums, SHARED_BYTES_WITHOUT_OPT_IN, WarpOrder};
pub use counters::{Class, Counters, Counts, InstrCounts, Loop, Summary};
pub use device::{Device, Ptr};
pub use error::{Error, Hazard, Result, Site, Space};
pub use launch::Arg;
pub use module::{Entry, Module, Param};
