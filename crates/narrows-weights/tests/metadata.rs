//! Packed files whose metadata say anything, under a right checksum: a typed error or the right values, and no more memory
//! than the file is worth.

mod common;

use std::alloc::System;

use common::laplace;
use narrows::machine::checksum;
use narrows::{Dtype, Shape};
use narrows_weights::{Error, PackOptions, PackedFile, Writer, pack};
use proptest::prelude::*;
use safetensors::tensor::Dtype as Stored;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is unpacked of a tensor before the test has seen enough: a few bytes can be any number of weights.
const ENOUGH: usize = 1 << 20;
/// Bytes that reading and unpacking one file may take: parts of up to 2^22 weights as f32 and bins, twice while vectors grow, and
/// the tables of decoders.
const BOUND: usize = 64 << 20;

/// A file with tensors of every kind.
fn whole() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    let mut writer = Writer::new(&path);
    let quantized = laplace(12, 20, 7, 1.0, 3);
    let shape = Shape::new(&[12, 20]).unwrap();
    let packed = pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap();
    writer.packed("matrix", &packed).unwrap();
    let floats: Vec<f32> = (0..60).map(|x| (x as f32).sin()).collect();
    let mut encoder = narrows::Encoder::new(narrows::EncodeOptions::lossless()).unwrap();
    let frame = encoder.encode(&narrows::TensorView::new(&floats, &[60]).unwrap()).unwrap();
    writer.lossless("floats", &frame).unwrap();
    writer.plain("plain", Stored::I64, &[2], &[7; 16]).unwrap();
    writer.plain("bias", Stored::F32, &[3], &[1; 12]).unwrap();
    writer.finish(&std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())])).unwrap();
    std::fs::read(path).unwrap()
}

/// The file with other words in its header, whose checksum is put right.
fn with_header(file: &[u8], header: &Value) -> Vec<u8> {
    let length = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header = header.clone();
    let key = "narrows.check";
    if let Some(digits) = header.pointer_mut("/__metadata__").and_then(|texts| texts.get_mut(key)) {
        *digits = json!("00000000");
    }
    let mut text = serde_json::to_string(&header).unwrap();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut changed = (text.len() as u64).to_le_bytes().to_vec();
    changed.extend(text.as_bytes());
    let field = format!("\"{key}\":\"");
    if let Some(at) = text.find(&field) {
        let digits = format!("{:08x}", checksum(&changed));
        let at = 8 + at + field.len();
        changed[at..at + 8].copy_from_slice(digits.as_bytes());
    }
    changed.extend(&file[length..]);
    changed
}

fn header(file: &[u8]) -> Value {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&file[8..8 + length]).unwrap()
}

/// Names and values of all tensors, as far as they are unpacked.
type Values = Vec<(String, Result<Vec<u8>, Error>)>;

fn values(bytes: Vec<u8>) -> Result<Values, Error> {
    let file = PackedFile::read(bytes)?;
    let _ = (file.texts(), file.bytes());
    let of = |name: &String| {
        let (tensor, mut all) = (file.tensor(name)?, Vec::new());
        let (dtype, shape) = tensor.unpacked()?;
        tensor.unpack(|part| {
            all.extend_from_slice(&part[..part.len().min(ENOUGH)]);
            if all.len() < ENOUGH { Ok(()) } else { Err(Error::NoSuchTensor { name: "enough".to_owned() }) }
        })?;
        let bits = shape.iter().product::<usize>() * dtype.bitsize();
        assert_eq!(8 * all.len(), bits, "{name}: as many as its shape says");
        Ok(all)
    };
    Ok(file.names().iter().map(|name| (name.clone(), of(name))).collect())
}

/// A change of the metadata: where, and what is there then.
#[derive(Clone, Debug)]
enum Change {
    Text(&'static str, Value),
    Field(usize, &'static str, Value),
    Rename(usize, String),
    Drop(usize),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..40_u64, any::<u64>(), (0..64_u32).prop_map(|bits| 1_u64 << bits)]
}

fn change() -> impl Strategy<Value = Change> {
    let word = prop_oneof![
        "[ -~]{0,20}".prop_map(String::from),
        "f32\\[[0-9,]{0,12}\\](:[0-9]{1,4}x[0-9]{1,3})?( #[0-9a-f]{8}){0,4}".prop_map(String::from),
        number().prop_map(|n| n.to_string()),
    ];
    let key = prop::sample::select(vec!["narrows", "narrows.tensors", "narrows.check", "format", "more"]);
    let dtypes = vec!["U8", "F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "U128", ""];
    prop_oneof![
        (key, word.clone()).prop_map(|(key, text)| Change::Text(key, json!(text))),
        (0..4_usize, prop::sample::select(dtypes)).prop_map(|(at, d)| Change::Field(at, "dtype", json!(d))),
        (0..4_usize, prop::collection::vec(number(), 0..4)).prop_map(|(at, dims)| Change::Field(
            at,
            "shape",
            json!(dims)
        )),
        (0..4_usize, number(), number()).prop_map(|(at, from, to)| Change::Field(
            at,
            "data_offsets",
            json!([from, to])
        )),
        (0..4_usize, word).prop_map(|(at, name)| Change::Rename(at, name)),
        (0..4_usize).prop_map(Change::Drop),
    ]
}

fn apply(header: &mut Value, change: Change) {
    let all = header.as_object_mut().unwrap();
    let name = |at: usize| ["matrix", "floats", "plain", "bias"][at];
    match change {
        Change::Text(key, text) => {
            if let Some(texts) = all.get_mut("__metadata__") {
                texts[key] = text;
            }
        }
        Change::Field(at, field, value) => {
            if let Some(tensor) = all.get_mut(name(at)) {
                tensor[field] = value;
            }
        }
        Change::Rename(at, new) => {
            if let Some(tensor) = all.remove(name(at)) {
                all.insert(new, tensor);
            }
        }
        Change::Drop(at) => drop(all.remove(name(at))),
    }
}

#[test]
fn metadata_that_say_anything_give_an_error_or_the_right_values() {
    let file = whole();
    let right = values(file.clone()).unwrap();
    assert_eq!(values(with_header(&file, &header(&file))).unwrap().len(), 4, "the checksum is put right");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (read, unpacked) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let changes = prop::collection::vec(change(), 1..4);
    let outcome = runner.run(&changes, |changes| {
        let mut header = header(&file);
        changes.into_iter().for_each(|change| apply(&mut header, change));
        let changed = with_header(&file, &header);
        let region = Region::new(ALLOCATOR);
        let found = values(changed);
        let taken = region.change().bytes_allocated;
        prop_assert!(taken <= BOUND, "{} bytes were allocated", taken);
        let Ok(found) = found else { return Ok(()) };
        read.set(read.get() + 1);
        for (name, values) in found {
            // A tensor that kept its name and is still packed has its values, or none.
            let (Ok(values), Some((_, Ok(expected)))) = (values, right.iter().find(|(own, _)| *own == name))
            else {
                continue;
            };
            unpacked.set(unpacked.get() + 1);
            if name == "matrix" && header[&name]["dtype"] == "U8" {
                prop_assert_eq!(&values, expected);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(read.get() > 20 && unpacked.get() > 20, "{} files were read", read.get());
}

#[test]
fn a_row_of_any_number_of_weights_in_a_few_bytes_is_refused() {
    // A constant matrix of one row of 2^31 columns.
    let quantized = narrows_weights::Quantized {
        values: vec![1; 4],
        grid: narrows_weights::Grid::new(vec![0.5], 3).unwrap(),
        rows: 1,
        columns: 4,
    };
    let shape = Shape::new(&[1, 4]).unwrap();
    let packed = pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap();
    let mut wide = packed[..packed.len() - 4].to_vec();
    // After magic, version and kinds: rows and columns as varints.
    assert_eq!(wide[5..7], [1, 4]);
    wide.splice(6..7, [0x80, 0x80, 0x80, 0x80, 0x08]);
    let checksum = checksum(&wide);
    wide.extend(checksum.to_le_bytes());
    let refused = narrows_weights::Matrix::read(wide).unwrap_err();
    assert!(matches!(refused, Error::InvalidHeader { what: "columns", .. }), "{refused}");
}
