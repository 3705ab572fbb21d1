//! Functions by name and CUDA version, as programs ask for them that link nothing.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::{flags_within, unless};
use crate::code::{self, Fail};
use crate::raw::{Out, Text};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const OWN_STREAM: u64 = 2;

/// Functions that have changed their signature: the CUDA versions that brought each form, the first without a suffix, then
/// `_v2` and on; and their names without `cu` (cudaTypedefs.h of CUDA 13.4 names them so).
#[rustfmt::skip]
const FORMS: &[(&[u32], &str)] = &[
    (&[2000, 3020], "Array3DCreate Array3DGetDescriptor ArrayCreate ArrayGetDescriptor DeviceTotalMem MemAlloc \
        MemAllocHost MemAllocPitch MemFree MemGetAddressRange MemGetInfo Memcpy2D Memcpy2DAsync \
        Memcpy2DUnaligned Memcpy3D Memcpy3DAsync MemcpyAtoA MemcpyAtoD MemcpyAtoH MemcpyAtoHAsync \
        MemcpyDtoA MemcpyDtoD MemcpyDtoH MemcpyDtoHAsync MemcpyHtoA MemcpyHtoAAsync MemcpyHtoD \
        MemcpyHtoDAsync MemsetD16 MemsetD2D16 MemsetD2D32 MemsetD2D8 MemsetD32 MemsetD8 ModuleGetGlobal \
        TexRefGetAddress TexRefSetAddress"),
    (&[2000, 3020, 11040, 12050], "CtxCreate"),
    (&[2000, 4000], "CtxDestroy CtxPopCurrent CtxPushCurrent EventDestroy StreamDestroy"),
    (&[2000, 12080], "EventElapsedTime"),
    (&[2000, 13000], "CtxGetDevice CtxSynchronize"),
    (&[2020, 3020], "MemHostGetDevicePointer"),
    (&[2020, 3020, 4010], "TexRefSetAddress2D"),
    (&[3000, 3020], "GraphicsResourceGetMappedPointer MemcpyDtoDAsync"),
    (&[3000, 6050], "GraphicsResourceSetMapFlags"),
    (&[4000, 6050], "MemHostRegister"),
    (&[4010, 11000], "IpcOpenMemHandle"),
    (&[5050, 6050], "LinkAddData LinkAddFile LinkCreate"),
    (&[7000, 11000], "DevicePrimaryCtxRelease DevicePrimaryCtxReset DevicePrimaryCtxSetFlags"),
    (&[8000, 11070], "StreamBatchMemOp StreamWaitValue32 StreamWriteValue32"),
    (&[8000, 12020], "MemAdvise MemPrefetchAsync"),
    (&[9000, 11070], "StreamWaitValue64 StreamWriteValue64"),
    (&[9020, 11040], "DeviceGetUuid"),
    (&[9020, 12050], "StreamGetCtx"),
    (&[10000, 10010], "StreamBeginCapture"),
    (&[10000, 11000], "GraphInstantiate"),
    (&[10000, 12000], "GraphAddKernelNode GraphKernelNodeGetParams GraphKernelNodeSetParams"),
    (&[10000, 12030], "GraphAddDependencies GraphGetEdges GraphNodeGetDependencies GraphNodeGetDependentNodes \
        GraphRemoveDependencies"),
    (&[10000, 13010], "LaunchHostFunc"),
    (&[10010, 11030, 12030], "StreamGetCaptureInfo"),
    (&[10010, 12000], "GraphExecKernelNodeSetParams"),
    (&[10020, 12000], "GraphExecUpdate"),
    (&[11030, 12000], "GetProcAddress"),
    (&[11030, 12030], "StreamUpdateCaptureDependencies"),
    (&[12010, 13010], "MulticastBindAddr MulticastBindMem"),
    (&[12020, 12030, 13040], "GraphAddNode"),
    (&[12020, 13040], "GraphNodeSetParams"),
    (&[12080, 13000], "Memcpy3DBatchAsync MemcpyBatchAsync"),
];

/// From this version on a form that is not exported has the arguments of the one after it.
const SAME_ARGUMENTS: u32 = 4000;

/// All that is exported, by name.
fn exports() -> &'static HashMap<&'static str, usize> {
    static TABLE: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = HashMap::new();
        let mut add = |name, address| {
            table.insert(name, address);
        };
        super::address::exports(&mut add);
        super::context::exports(&mut add);
        super::copy::exports(&mut add);
        super::device::exports(&mut add);
        super::event::exports(&mut add);
        super::host::exports(&mut add);
        super::kernel::exports(&mut add);
        super::library::exports(&mut add);
        super::managed::exports(&mut add);
        super::module::exports(&mut add);
        super::occupancy::exports(&mut add);
        super::pool::exports(&mut add);
        super::stream::exports(&mut add);
        super::stubs::exports(&mut add);
        exports_of_this(&mut add);
        table
    })
}

/// The exported name of a function's form.
fn form(name: &str, version: u32) -> Result<String, bool> {
    let table = exports();
    let base = name.strip_prefix("cu").unwrap_or_default();
    let known = FORMS.iter().find(|(_, names)| names.split_whitespace().any(|found| found == base));
    let Some((versions, _)) = known else {
        return if table.contains_key(name) { Ok(name.to_string()) } else { Err(false) };
    };
    let Some(last) = versions.iter().rposition(|&since| since <= version) else { return Err(true) };
    let suffixed =
        |at: usize| if at == 0 { name.to_string() } else { format!("{name}_v{}", at + 1) };
    let at = if versions[last] >= SAME_ARGUMENTS { last..last + 2 } else { last..last + 1 };
    at.map(suffixed).find(|name| table.contains_key(name.as_str())).ok_or(true)
}

fn find(
    name: Text,
    to: Out<usize>,
    version: i32,
    flags: u64,
    status: Out<u32>,
) -> Result<(), Fail> {
    let name = name.get()?;
    to.needed()?;
    flags_within(flags as u32, 3)?;
    unless(version < 0, code::INVALID_VALUE, || format!("CUDA version {version}"))?;
    let found = form(&name, version as u32).and_then(|name| {
        let own = ["_ptsz", "_ptds"].map(|suffix| format!("{name}{suffix}"));
        let own = own
            .iter()
            .filter(|_| flags & OWN_STREAM != 0)
            .find_map(|own| exports().get(own.as_str()));
        own.or_else(|| exports().get(name.as_str())).copied().ok_or(false)
    });
    match found {
        Ok(address) => {
            status.put_if(0);
            to.put(address)
        }
        Err(known) => {
            // Found in no form, or in later ones alone.
            status.put_if(if known { 2 } else { 1 });
            to.put_if(0);
            // Programs ask for what may not be there: nothing is said.
            Err(code::NOT_FOUND.into())
        }
    }
}

mod exported {
    use super::{Out, Text, find};

    api! {
        fn cuGetProcAddress_v2(name: Text, to: Out<usize>, version: i32, flags: u64, status: Out<u32>) {
            find(name, to, version, flags, status)
        }

        fn cuGetProcAddress(name: Text, to: Out<usize>, version: i32, flags: u64) {
            find(name, to, version, flags, Out::none())
        }
    }
}

use exported::exports as exports_of_this;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_version() {
        assert_eq!(form("cuMemAlloc", 12040).as_deref(), Ok("cuMemAlloc_v2"));
        assert_eq!(form("cuMemAlloc", 3000), Err(true));
        assert_eq!(form("cuInit", 2000).as_deref(), Ok("cuInit"));
        for (version, name) in [
            (3020, "cuCtxCreate_v2"),
            (11040, "cuCtxCreate_v3"),
            (12040, "cuCtxCreate_v3"),
            (12050, "cuCtxCreate_v4"),
            (13000, "cuCtxCreate_v4"),
        ] {
            assert_eq!(form("cuCtxCreate", version).as_deref(), Ok(name));
        }
        assert_eq!(form("cuMemAdvise", 12010).as_deref(), Ok("cuMemAdvise"));
        assert_eq!(form("cuMemAdvise", 12020).as_deref(), Ok("cuMemAdvise_v2"));
        assert_eq!(form("cuMemHostRegister", 5000).as_deref(), Ok("cuMemHostRegister_v2"));
        assert_eq!(form("cuNothing", 12040), Err(false));
        // Each name of the table is one that is exported in its last form.
        for (versions, names) in FORMS {
            for name in names.split_whitespace() {
                let last = versions.last().copied().unwrap();
                assert!(form(&format!("cu{name}"), last).is_ok(), "{name}");
            }
        }
    }
}
