use super::*;

#[test]
fn names_are_read_as_they_are_written() {
    for (text, device) in [
        ("cpu", Device::Cpu),
        ("auto", Device::Auto),
        ("cuda", Device::Cuda(vec![])),
        ("cuda:2", Device::Cuda(vec![2])),
        ("cuda:0,1", Device::Cuda(vec![0, 1])),
        ("sim", Device::Sim),
        ("0", Device::Prefer(0)),
    ] {
        assert_eq!(text.parse::<Device>().unwrap(), device);
        assert_eq!(device.to_string(), text);
    }
    for text in ["", "gpu", "cuda:", "cuda:x", "-1", "cuda:1,"] {
        let message = text.parse::<Device>().unwrap_err().to_string();
        assert!(message.starts_with("device: "), "{message}");
    }
}

#[test]
fn card_that_must_be_there_is_never_replaced_by_the_processor() {
    // No machine has this many cards; one without a driver says that.
    let absent = Device::Cuda(vec![4096]);
    assert!(matches!(absent.open(DeviceOptions::default()), Err(Error::Device { .. })));
}

#[test]
fn formats_are_those_asked_for_or_an_error() {
    let open = |device: Device, precision, exact| {
        let options = DeviceOptions::default().with_threads(1).with_precision(precision);
        device.open(options.with_exact(exact)).map(|(backend, said)| (backend.formats(), said))
    };
    let of = |device, precision, exact| {
        let found = open(device, precision, exact).unwrap().0;
        (found.features, found.scoring)
    };
    assert_eq!(of(Device::Cpu, Precision::F32, false), ("f32", "f32"));
    assert_eq!(of(Device::Cpu, Precision::Auto, true), ("f32", "f32"));
    let fastest = Cpu::open_fastest(CpuOptions::default().with_threads(1)).unwrap();
    let scoring = fastest.scoring_format().name();
    assert_eq!(of(Device::Cpu, Precision::Auto, false), ("f32", scoring));
    // It is asked for the same way where the processor has it, and refused with both names where it lacks it.
    match open(Device::Cpu, Precision::Bf16, true) {
        Ok((formats, _)) => {
            assert_eq!((formats.features, formats.scoring), ("bf16", "bf16"));
            assert_eq!(scoring, "bf16");
        }
        Err(error) => {
            assert_eq!(scoring, "f32");
            let said = error.to_string();
            assert!(said.contains("avx512-bf16") && said.contains("f32"), "{said}");
        }
    }
    let refused = open(Device::Cpu, Precision::F16, false).unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    assert!(refused.to_string().starts_with("precision: found f16, expected f32, bf16 or"));
    // With no such card, why there is none and why it is not the processor.
    let said = open(Device::Prefer(4096), Precision::F16, false).unwrap_err().to_string();
    assert!(said.contains("no card, since ") && said.contains("found f16"), "{said}");
    // It is of the processor alone.
    let (formats, said) = open(Device::Auto, Precision::F32, false).unwrap();
    assert_eq!((formats.features, formats.scoring), ("f32", "f32"));
    assert!(said.unwrap().starts_with("device: cpu, since "));
}

#[cfg(feature = "sim")]
#[test]
fn a_card_has_halves_alone() {
    let open = |precision| Device::Sim.open(DeviceOptions::default().with_precision(precision));
    let refused = open(Precision::F32).unwrap_err().to_string();
    assert!(refused.starts_with("precision: found f32, expected f16, bf16 or auto on a card"));
    for (precision, half) in
        [(Precision::Auto, "f16"), (Precision::F16, "f16"), (Precision::Bf16, "bf16")]
    {
        let formats = open(precision).unwrap().0.formats();
        assert_eq!(formats, Formats { features: half, scoring: half, instructions: None });
    }
}

#[test]
fn falling_back_is_said_aloud() {
    let open = |device: Device| device.open(DeviceOptions::default()).unwrap();
    assert!(matches!(open(Device::Cpu), (AnyBackend::Cpu(_), None)));
    assert!(open(Device::Auto).1.is_some());
    let (backend, said) = open(Device::Prefer(4096));
    assert!(matches!(backend, AnyBackend::Cpu(_)));
    assert!(said.unwrap().contains("device 4096"));
}
