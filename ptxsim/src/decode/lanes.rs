//! Macros that turn an expression on one lane into a function on all lanes. The closures
//! capture nothing, so they become plain function pointers.

macro_rules! lanes {
    ($fn:ident, $l:ident, |$a:pat_param| $e:expr) => {
        (|a: &$crate::ir::$l, _: &$crate::ir::$l, _: &$crate::ir::$l, d: &mut $crate::ir::$l| {
            for i in 0..$crate::ir::W {
                let $a = a[i];
                d[i] = $e;
            }
        }) as $crate::ir::$fn
    };
    ($fn:ident, $l:ident, |$a:pat_param, $b:pat_param| $e:expr) => {
        (|a: &$crate::ir::$l, b: &$crate::ir::$l, _: &$crate::ir::$l, d: &mut $crate::ir::$l| {
            for i in 0..$crate::ir::W {
                let ($a, $b) = (a[i], b[i]);
                d[i] = $e;
            }
        }) as $crate::ir::$fn
    };
    ($fn:ident, $l:ident, |$a:pat_param, $b:pat_param, $c:pat_param| $e:expr) => {
        (|a: &$crate::ir::$l, b: &$crate::ir::$l, c: &$crate::ir::$l, d: &mut $crate::ir::$l| {
            for i in 0..$crate::ir::W {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                d[i] = $e;
            }
        }) as $crate::ir::$fn
    };
}

macro_rules! f1 { ($($t:tt)*) => { lanes!(Fn32, L32, $($t)*) }; }
macro_rules! f2 { ($($t:tt)*) => { lanes!(Fn32, L32, $($t)*) }; }
macro_rules! f3 { ($($t:tt)*) => { lanes!(Fn32, L32, $($t)*) }; }
macro_rules! g1 { ($($t:tt)*) => { lanes!(Fn64, L64, $($t)*) }; }
macro_rules! g2 { ($($t:tt)*) => { lanes!(Fn64, L64, $($t)*) }; }
macro_rules! g3 { ($($t:tt)*) => { lanes!(Fn64, L64, $($t)*) }; }

/// 32-bit sources, 64-bit addend and result.
macro_rules! wide {
    (|$a:pat_param, $b:pat_param, $c:pat_param| $e:expr) => {
        (|a: &$crate::ir::L32,
          b: &$crate::ir::L32,
          c: &$crate::ir::L64,
          d: &mut $crate::ir::L64| {
            for i in 0..$crate::ir::W {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                d[i] = $e;
            }
        }) as $crate::ir::FnWide
    };
}

/// 64-bit source, 32-bit result.
macro_rules! narrow {
    (|$a:pat_param| $e:expr) => {
        (|a: &$crate::ir::L64, d: &mut $crate::ir::L32| {
            for i in 0..$crate::ir::W {
                let $a = a[i];
                d[i] = $e;
            }
        }) as $crate::ir::FnNarrow
    };
}

/// A comparison of 32-bit registers: one bit a lane.
macro_rules! c2 {
    (|$a:pat_param, $b:pat_param| $e:expr) => {
        (|a: &$crate::ir::L32, b: &$crate::ir::L32| {
            let mut m = 0;
            for i in 0..$crate::ir::W {
                let ($a, $b) = (a[i], b[i]);
                m |= u32::from($e) << i;
            }
            m
        }) as $crate::ir::FnCmp32
    };
}

/// A comparison of 64-bit registers: one bit a lane.
macro_rules! k2 {
    (|$a:pat_param, $b:pat_param| $e:expr) => {
        (|a: &$crate::ir::L64, b: &$crate::ir::L64| {
            let mut m = 0;
            for i in 0..$crate::ir::W {
                let ($a, $b) = (a[i], b[i]);
                m |= u32::from($e) << i;
            }
            m
        }) as $crate::ir::FnCmp64
    };
}

/// Picks the instance of a lane function by its flags: 1 flushes subnormals, 2 saturates.
macro_rules! by_flags {
    ($flags:expr, $m:ident, $f:ident, $($a:ident),*) => {
        match $flags {
            0 => $m!(|$($a),*| $f::<0>($($a),*)),
            1 => $m!(|$($a),*| $f::<1>($($a),*)),
            2 => $m!(|$($a),*| $f::<2>($($a),*)),
            _ => $m!(|$($a),*| $f::<3>($($a),*)),
        }
    };
}

pub(crate) use {by_flags, c2, f1, f2, f3, g1, g2, g3, k2, lanes, narrow, wide};
