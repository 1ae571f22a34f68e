//! The time each stage of encoding and decoding takes: `cargo bench -p narrows --features stages --bench chain`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

#[path = "../tests/common/mod.rs"]
mod common;

use half::{bf16, f16};
use narrows::stages::{Stages, checksum};
use narrows::{
    Calibration, Decoder, Element, EncodeOptions, Encoder, LayoutChoice, Profile, Profiles, Shape, Target,
    Tensor, TensorView,
};

/// Repeats of a stage; the best counts. `NARROWS_PATH` says which instructions are measured.
const REPEATS: usize = 15;
/// How long one repeat takes at least, seconds.
const REPEAT: f64 = 0.002;

/// Microseconds of one call, the best of the repeats.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let time = |count: u32, call: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..count).for_each(|_| call());
        start.elapsed().as_secs_f64()
    };
    let mut count = 1;
    while time(count, &mut call) < REPEAT {
        count *= 2;
    }
    let best = (0..REPEATS).map(|_| time(count, &mut call)).fold(f64::INFINITY, f64::min);
    best / f64::from(count) * 1e6
}

fn stage<T: Element>(stages: &mut Stages<T>, call: impl Fn(&mut Stages<T>)) -> f64 {
    microseconds(|| call(black_box(stages)))
}

fn whole<T: Element>(
    elements: &[T],
    dims: &[usize],
    options: EncodeOptions,
    mut decoder: Decoder,
) -> (f64, f64) {
    let view = TensorView::new(elements, dims).unwrap();
    let mut encoder = Encoder::new(options).unwrap();
    let (mut frame, mut tensor) = (Vec::new(), Tensor::default());
    let encode = microseconds(|| encoder.encode_into(black_box(&view), &mut frame).unwrap());
    let decode = microseconds(|| decoder.decode_into(black_box(&frame), &mut tensor).unwrap());
    (encode, decode)
}

fn report<T: Element>(elements: Vec<T>, dims: &[usize], bits: u8) {
    let of = |layout, target| EncodeOptions { layout, target, ..EncodeOptions::bits(bits) };
    let whole = |layout, target| whole(&elements, dims, of(layout, target), Decoder::new());
    let contexts = whole(LayoutChoice::Auto, Target::Size);
    let order_0 = whole(LayoutChoice::Natural, Target::Size);
    let speedy = whole(LayoutChoice::Auto, Target::Speed);
    let speedy_order_0 = whole(LayoutChoice::Natural, Target::Speed);
    let mut stages = Stages::new(elements, dims, bits);
    let s = &mut stages;
    let row = [
        stage(s, |s| _ = black_box(s.range())),
        stage(s, Stages::quantize),
        stage(s, Stages::gather),
        stage(s, Stages::count),
        stage(s, Stages::count_contexts),
        stage(s, |s| _ = black_box(s.merge())),
        stage(s, Stages::plan_order_0),
        stage(s, Stages::plan_neighbours),
        {
            s.gather();
            stage(s, Stages::encode)
        },
        stage(s, Stages::decode),
        stage(s, Stages::scatter_and_dequantize),
        contexts.0,
        contexts.1,
        order_0.0,
        order_0.1,
        speedy.0,
        speedy.1,
        speedy_order_0.0,
        speedy_order_0.1,
    ];
    print!("{:<20}", format!("{} {dims:?} Q{bits}", T::DTYPE));
    row.iter().for_each(|time| print!(" {time:8.2}"));
    println!();
}

fn main() {
    let headings = [
        "range", "+quant", "gather", "count0", "countctx", "merge", "plan0", "planctx", "code", "decode",
        "scat+deq", "enc ctx", "dec ctx", "enc o0", "dec o0", "S ectx", "S dctx", "S eo0", "S do0",
    ];
    print!("{:<20}", "microseconds");
    headings.iter().for_each(|heading| print!(" {heading:>8}"));
    println!();
    for dims in [[128, 28, 28], [32, 28, 28], [128, 7, 7], [32, 8, 8]] {
        report(common::features(&dims, 1), &dims, 4);
    }
    let dims = [32, 28, 28];
    let features = common::features(&dims, 1);
    report(features.clone(), &dims, 2);
    report(features.clone(), &dims, 8);
    report(features.iter().map(|&x| f16::from_f32(x)).collect(), &dims, 4);
    report(features.iter().map(|&x| bf16::from_f32(x)).collect(), &dims, 4);
    let mut bytes = Vec::new();
    for length in [300, 1000, 25_000] {
        println!("checksum of {length} bytes: {:.3}", microseconds(|| checksum(&mut bytes, length)));
    }
    profile(&[32, 8, 8]);
    profile(&[128, 28, 28]);
}

/// A small tensor with a profile, whole.
fn profile(dims: &[usize]) {
    let samples: Vec<Vec<f32>> = (2..12).map(|seed| common::features(dims, seed)).collect();
    let views: Vec<_> = samples.iter().map(|data| TensorView::new(data, dims).unwrap()).collect();
    let profile = Arc::new(Profile::calibrate(&views, &Calibration::default()).unwrap());
    let mut profiles = Profiles::default();
    profiles.insert(Arc::clone(&profile));
    let decoder = Decoder::new().with_profiles(profiles);
    let (encode, decode) = whole(&common::features(dims, 1), dims, profile.options(), decoder);
    let shape = Shape::new(dims).unwrap();
    let mut stages = Stages::new(common::features(dims, 1), dims, 4);
    let around = [
        stage(&mut stages, |s| s.around_encoding(&profile, &shape)),
        stage(&mut stages, |s| s.around_decoding(&profile)),
    ];
    println!(
        "f32 {dims:?} with a profile: encode {encode:.2}, decode {decode:.2}; without the coder {:.2} and {:.2}",
        around[0], around[1]
    );
}
