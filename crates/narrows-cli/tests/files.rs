//! Tensors through files and pipes, and what is said of files that will not do.

mod common;

use std::fs;

use common::*;
use half::{bf16, f16};
use serde_json::Value;

#[test]
fn lossless_frames_bring_back_npy_files_of_f32_and_f16_byte_for_byte() {
    let folder = Folder::new("lossless-npy");
    let mut values = waves();
    values[3] = f32::NAN;
    values[4] = f32::NEG_INFINITY;
    values[5] = -0.0;
    let wide = npy("<f4", "False", "(8, 6, 7)", values.iter().flat_map(|x| x.to_le_bytes()));
    let narrow = npy("<f2", "False", "(336,)", values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
    for (name, file) in [("wide", wide), ("narrow", narrow)] {
        folder.write(&format!("{name}.npy"), &file);
        folder.succeed(&["encode", "--lossless", &format!("{name}.npy")]);
        folder.succeed(&["decode", &format!("{name}.nrw"), "-o", "back.npy", "--force"]);
        assert_eq!(fs::read(folder.path("back.npy")).unwrap(), file, "{name}");
    }
}

#[test]
fn lossless_frames_bring_back_safetensors_of_all_three_types() {
    let folder = Folder::new("lossless-safetensors");
    let f32s: Vec<u8> = waves().iter().flat_map(|x| x.to_le_bytes()).collect();
    let f16s: Vec<u8> = waves().iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let bf16s: Vec<u8> = waves().iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    for (dtype, bytes) in
        [(safetensors::Dtype::F32, f32s), (safetensors::Dtype::F16, f16s), (safetensors::Dtype::BF16, bf16s)]
    {
        folder.write("in.safetensors", &safetensors(&[("tensor", dtype, &bytes)]));
        folder.succeed(&["encode", "--lossless", "in.safetensors", "-o", "x.nrw", "--force"]);
        folder.succeed(&["decode", "x.nrw", "-o", "out.safetensors", "--force"]);
        let file = fs::read(folder.path("out.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        let tensor = file.tensor("tensor").unwrap();
        assert_eq!((tensor.dtype(), tensor.data()), (dtype, bytes.as_slice()));
    }
}

#[test]
fn a_tensor_goes_through_pipes_as_it_goes_through_files() {
    let folder = Folder::new("pipes");
    folder.write("x.npy", &waves_npy());
    folder.succeed(&["encode", "x.npy", "--bits", "6"]);
    folder.succeed(&["decode", "x.nrw", "-o", "y.npy"]);
    let frame = feed(&["encode", "-", "--bits", "6"], &waves_npy());
    assert_eq!(frame.stdout, fs::read(folder.path("x.nrw")).unwrap());
    let array = feed(&["decode", "-", "-o", "-"], &frame.stdout);
    assert_eq!(array.stdout, fs::read(folder.path("y.npy")).unwrap());
}

#[test]
fn quantised_elements_are_within_half_a_step() {
    let folder = Folder::new("half-a-step");
    folder.write("x.npy", &waves_npy());
    let range = waves().iter().copied().fold(0.0, f32::max);
    for bits in [2_u32, 4, 8] {
        let report = folder.json(&["encode", "x.npy", "--check", "--force", "--bits", &bits.to_string()]);
        let largest = report["frames"][0]["max_error"].as_f64().unwrap();
        let half_a_step = f64::from(range) / f64::from((1_u32 << bits) - 1) / 2.0;
        assert!(largest > 0.0 && largest <= half_a_step * 1.0001, "{bits} bits: {largest} of {half_a_step}");
    }
}

#[test]
fn every_layout_and_coder_decodes_to_the_same_elements() {
    let folder = Folder::new("layouts");
    folder.write("x.npy", &waves_npy());
    folder.succeed(&["encode", "x.npy"]);
    folder.succeed(&["decode", "x.nrw", "-o", "expected.npy"]);
    let expected = fs::read(folder.path("expected.npy")).unwrap();
    for options in [
        ["--layout", "natural"],
        ["--layout", "planes"],
        ["--layout", "csr"],
        ["--layout", "csr-exhaustive"],
        ["--layout", "csr-separate"],
        ["--coder", "packed"],
        ["--coder", "rans"],
        ["--coder", "tans"],
        ["--coder", "tans:64"],
        ["--coder", "tans:4096"],
        ["--target", "latency"],
        ["--axis", "2"],
    ] {
        folder.succeed(&["encode", "x.npy", "-o", "y.nrw", "--force", options[0], options[1]]);
        folder.succeed(&["decode", "y.nrw", "-o", "y.npy", "--force"]);
        assert!(fs::read(folder.path("y.npy")).unwrap() == expected, "{options:?}");
    }
}

#[test]
fn fortran_order_and_big_endian_arrays_are_read_as_what_they_mean() {
    let folder = Folder::new("orders");
    // 2 x 3: [[0 1 2] [3 4 5]].
    let meant =
        npy("<f4", "False", "(2, 3)", [0, 1, 2, 3, 4, 5].iter().flat_map(|&x| (x as f32).to_le_bytes()));
    let fortran =
        npy("<f4", "True", "(2, 3)", [0, 3, 1, 4, 2, 5].iter().flat_map(|&x| (x as f32).to_le_bytes()));
    let big =
        npy(">f4", "False", "(2, 3)", [0, 1, 2, 3, 4, 5].iter().flat_map(|&x| (x as f32).to_be_bytes()));
    for file in [fortran, big] {
        folder.write("x.npy", &file);
        folder.succeed(&["encode", "--lossless", "x.npy", "--force"]);
        folder.succeed(&["decode", "x.nrw", "-o", "y.npy", "--force"]);
        assert_eq!(fs::read(folder.path("y.npy")).unwrap(), meant);
    }
}

#[test]
fn an_npz_of_several_tensors_makes_a_frame_each() {
    let folder = Folder::new("npz");
    folder.write("two.npz", &npz(&[("left", &waves_npy()), ("block/right", &waves_npy())]));
    let report = folder.json(&["encode", "two.npz"]);
    assert_eq!(report["frames"].as_array().unwrap().len(), 2);
    for frame in ["two.left.nrw", "two.block_right.nrw"] {
        folder.succeed(&["decode", frame]);
    }
    folder.succeed(&["encode", "two.npz", "--tensor", "left", "-o", "one.nrw"]);
    assert_eq!(fs::read(folder.path("one.nrw")).unwrap(), fs::read(folder.path("two.left.nrw")).unwrap());
}

#[test]
fn several_tensors_do_not_go_into_one_file() {
    let folder = Folder::new("npz-one-file");
    folder.write("two.npz", &npz(&[("left", &waves_npy()), ("right", &waves_npy())]));
    assert!(folder.fail(USAGE, &["encode", "two.npz", "-o", "one.nrw"]).contains("--tensor"));
    assert!(!folder.path("one.nrw").exists());
    fs::create_dir(folder.path("frames")).unwrap();
    folder.succeed(&["encode", "two.npz", "-o", "frames"]);
    assert!(folder.path("frames/two.left.nrw").exists());
}

#[test]
fn a_tensor_that_is_not_there_is_answered_with_those_that_are() {
    let folder = Folder::new("npz-names");
    folder.write("two.npz", &npz(&[("left", &waves_npy()), ("right", &waves_npy())]));
    let said = folder.fail(USAGE, &["encode", "two.npz", "--tensor", "centre"]);
    assert!(said.contains("centre") && said.contains("left, right"), "{said}");
    let said = folder.fail(USAGE, &["plan", "two.npz"]);
    assert!(said.contains("left, right"), "{said}");
}

#[test]
fn elements_of_other_types_are_refused_by_name() {
    let folder = Folder::new("types");
    for (kind, name) in
        [("<f8", "float64"), ("<i8", "int64"), ("|u1", "uint8"), ("|b1", "bool"), ("<c8", "complex64")]
    {
        folder.write("x.npy", &npy(kind, "False", "(1,)", [0; 8]));
        let said = folder.fail(DATA, &["encode", "x.npy"]);
        assert!(said.contains(name) && said.contains("float32"), "{said}");
    }
    folder.write("x.safetensors", &safetensors(&[("n", safetensors::Dtype::I64, &[0; 8])]));
    let said = folder.fail(DATA, &["encode", "x.safetensors"]);
    assert!(said.contains("I64"), "{said}");
}

#[test]
fn files_that_are_no_tensors_are_refused() {
    let folder = Folder::new("no-tensors");
    folder.write("empty.npy", b"");
    folder.write("text.npy", b"this is no array");
    folder.write("short.npy", &waves_npy()[..300]);
    folder.write("long.npy", &[waves_npy(), vec![0]].concat());
    folder.write("huge.npy", &npy("<f4", "False", "(1000000000000,)", []));
    // Axis lengths whose product fits in no integer.
    folder.write("overflow.npy", &npy("<f4", "False", "(4294967296, 4294967296, 4294967296)", []));
    folder.write("scalar.npy", &npy("<f4", "False", "()", [0; 4]));
    folder.write("zip.npz", b"PK\x03\x04 and no more");
    folder.write("st.safetensors", b"\x10\0\0\0\0\0\0\0{\"a\":");
    folder.frame("x.nrw");
    for name in [
        "empty.npy",
        "text.npy",
        "short.npy",
        "long.npy",
        "huge.npy",
        "overflow.npy",
        "scalar.npy",
        "zip.npz",
        "st.safetensors",
        "x.nrw",
    ] {
        assert!(folder.fail(DATA, &["encode", name, "-o", "y.nrw"]).contains(name));
        assert!(!folder.path("y.nrw").exists());
    }
}

#[test]
fn nan_is_refused_with_the_way_to_keep_it() {
    let folder = Folder::new("nan");
    let values = [1.0, f32::NAN, 2.0];
    folder.write("x.npy", &npy("<f4", "False", "(3,)", values.iter().flat_map(|x| x.to_le_bytes())));
    let said = folder.fail(DATA, &["encode", "x.npy"]);
    assert!(said.contains("element 1 is NaN") && said.contains("--lossless"), "{said}");
    let report = folder.json(&["encode", "x.npy", "--lossless", "--check"]);
    assert_eq!(report["frames"][0]["exact"], true);
}

#[test]
fn a_file_that_is_not_there_is_no_input() {
    let folder = Folder::new("no-input");
    for command in ["encode", "decode", "inspect", "plan"] {
        assert!(folder.fail(NO_INPUT, &[command, "nothing.npy"]).contains("nothing.npy"));
    }
    folder.fail(NO_INPUT, &["calibrate", "nothing.npy", "-o", "x.nrp"]);
}

#[test]
fn a_place_that_cannot_be_written_is_an_io_error() {
    let folder = Folder::new("io");
    folder.write("x.npy", &waves_npy());
    let said = folder.fail(IO, &["encode", "x.npy", "-o", "missing/x.nrw"]);
    assert!(said.contains("missing/x.nrw"), "{said}");
}

#[test]
fn a_file_that_is_there_stays_unless_forced() {
    let folder = Folder::new("clobber");
    folder.write("x.npy", &waves_npy());
    folder.write("x.nrw", b"precious");
    let said = folder.fail(USAGE, &["encode", "x.npy"]);
    assert!(said.contains("x.nrw") && said.contains("--force"), "{said}");
    assert_eq!(fs::read(folder.path("x.nrw")).unwrap(), b"precious");
    folder.succeed(&["encode", "x.npy", "--force"]);
    let said = folder.fail(USAGE, &["decode", "x.nrw"]);
    assert!(said.contains("x.npy"), "{said}");
    assert_eq!(fs::read(folder.path("x.npy")).unwrap(), waves_npy());
}

#[test]
fn nothing_but_the_result_is_left_in_the_folder() {
    let folder = Folder::new("leftovers");
    folder.write("x.npy", &waves_npy());
    folder.succeed(&["encode", "x.npy"]);
    folder.fail(DATA, &["decode", "x.npy", "-o", "y.npy"]);
    let mut names: Vec<_> =
        fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["x.npy", "x.nrw"]);
}

#[test]
fn a_flipped_byte_is_corrupt_data_and_names_the_checksum() {
    let folder = Folder::new("flipped");
    let path = folder.frame("x.nrw");
    let mut frame = fs::read(&path).unwrap();
    let middle = frame.len() / 2;
    frame[middle] ^= 0x10;
    fs::write(&path, &frame).unwrap();
    for command in ["decode", "inspect"] {
        let said = folder.fail(DATA, &[command, "x.nrw"]);
        assert!(said.contains("checksum mismatch"), "{said}");
    }
    assert!(!folder.path("x.npy").exists());
}

#[test]
fn a_cut_frame_is_corrupt_data() {
    let folder = Folder::new("cut");
    let path = folder.frame("x.nrw");
    let frame = fs::read(&path).unwrap();
    for length in [0, 2, 9, frame.len() - 1] {
        fs::write(&path, &frame[..length]).unwrap();
        folder.fail(DATA, &["decode", "x.nrw"]);
    }
}

#[test]
fn a_frame_above_the_limit_is_refused_with_the_way_to_raise_it() {
    let folder = Folder::new("limit");
    folder.frame("x.nrw");
    let said = folder.fail(DATA, &["decode", "x.nrw", "--max-elements", "335"]);
    assert!(said.contains("336") && said.contains("--max-elements"), "{said}");
    folder.succeed(&["decode", "x.nrw", "--max-elements", "336"]);
}

#[test]
fn bf16_needs_a_format_that_holds_it() {
    let folder = Folder::new("bf16");
    let bytes: Vec<u8> = waves().iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    folder.write("x.safetensors", &safetensors(&[("x", safetensors::Dtype::BF16, &bytes)]));
    folder.succeed(&["encode", "x.safetensors", "-o", "x.nrw"]);
    let said = folder.fail(USAGE, &["decode", "x.nrw"]);
    assert!(said.contains("bf16") && said.contains(".safetensors"), "{said}");
    folder.succeed(&["decode", "x.nrw", "--format", "safetensors", "-o", "y.safetensors"]);
}

#[test]
fn an_output_that_names_no_format_is_refused() {
    let folder = Folder::new("format");
    folder.frame("x.nrw");
    assert!(folder.fail(USAGE, &["decode", "x.nrw", "-o", "x.txt"]).contains("--format"));
    folder.succeed(&["decode", "x.nrw", "-o", "x.txt", "--format", "npy"]);
}

#[test]
fn a_profile_serves_encoder_and_decoder() {
    let folder = Folder::new("profile");
    folder.write("x.npy", &waves_npy());
    let profile = folder.json(&["calibrate", "x.npy", "-o", "cut.nrp", "--levels", "6"]);
    assert_eq!((&profile["levels"], &profile["samples"]), (&Value::from(6), &Value::from(1)));
    folder.succeed(&["encode", "x.npy", "--profile", "cut.nrp"]);
    folder.succeed(&["decode", "x.nrw", "--profile", "cut.nrp", "-o", "y.npy"]);
    let report = folder.json(&["inspect", "x.nrw", "--profile", "cut.nrp"]);
    let frame = &report["frames"][0];
    assert_eq!((&frame["profile"], &frame["quantizer"]["levels"]), (&profile["id"], &Value::from(6)));
}

#[test]
fn a_batch_calibrates_as_its_samples_do() {
    let folder = Folder::new("batched");
    let halves: Vec<Vec<u8>> =
        waves().chunks(168).map(|half| half.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    folder.write("batch.npy", &npy("<f4", "False", "(2, 4, 6, 7)", halves.concat()));
    folder.write("a.npy", &npy("<f4", "False", "(4, 6, 7)", halves[0].clone()));
    folder.write("b.npy", &npy("<f4", "False", "(4, 6, 7)", halves[1].clone()));
    let batch = folder.json(&["calibrate", "batch.npy", "--batched", "-o", "batch.nrp"]);
    let files = folder.json(&["calibrate", "a.npy", "b.npy", "-o", "files.nrp"]);
    assert_eq!((&batch["id"], &batch["samples"]), (&files["id"], &Value::from(2)));
    assert_eq!(fs::read(folder.path("batch.nrp")).unwrap(), fs::read(folder.path("files.nrp")).unwrap());
}

#[test]
fn a_frame_of_an_unknown_profile_is_a_matter_of_configuration() {
    let folder = Folder::new("unknown-profile");
    folder.write("x.npy", &waves_npy());
    let id = folder.json(&["calibrate", "x.npy", "-o", "cut.nrp"])["id"].as_str().unwrap().to_owned();
    folder.json(&["calibrate", "x.npy", "-o", "other.nrp", "--levels", "5"]);
    folder.succeed(&["encode", "x.npy", "--profile", "cut.nrp"]);
    for args in [&["decode", "x.nrw"][..], &["decode", "x.nrw", "--profile", "other.nrp"]] {
        let said = folder.fail(CONFIGURATION, &[args, &["-o", "y.npy"]].concat());
        assert!(said.contains(&id) && said.contains("--profile"), "{said}");
    }
    // What the header says can be seen without it.
    let report = folder.json(&["inspect", "x.nrw"]);
    assert_eq!(
        (&report["frames"][0]["profile"], &report["frames"][0]["profile_missing"]),
        (&id.into(), &true.into())
    );
}

#[test]
fn a_file_that_is_no_profile_is_a_matter_of_configuration() {
    let folder = Folder::new("no-profile");
    folder.write("x.npy", &waves_npy());
    let said = folder.fail(CONFIGURATION, &["encode", "x.npy", "--profile", "x.npy"]);
    assert!(said.contains("not a narrows profile"), "{said}");
    folder.succeed(&["calibrate", "x.npy", "-o", "cut.nrp"]);
    let mut bytes = fs::read(folder.path("cut.nrp")).unwrap();
    bytes[8] ^= 1;
    folder.write("cut.nrp", &bytes);
    folder.fail(CONFIGURATION, &["encode", "x.npy", "--profile", "cut.nrp"]);
}
