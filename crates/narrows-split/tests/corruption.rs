//! Damaged models give a typed error or a model, never a panic.

mod common;

use common::{Build, residual};
use narrows_split::{Engine, Error, Model, cuts, split};
use prost::Message as _;

fn error(build: Build) -> Error {
    Model::from_bytes(&build.bytes()).unwrap_err()
}

/// Everything that can be done with a model.
fn exercise(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let _ = cuts(&model);
    let _ = split(&model, "a");
    let Ok(engine) = Engine::load(&model) else { return };
    let elements: usize = engine.input_shape().iter().product();
    if elements < 1 << 16 {
        let _ = engine.run(&vec![1.0; elements]);
    }
}

#[test]
fn a_truncated_model_is_an_error_or_a_model() {
    let bytes = residual().bytes();
    for length in 0..bytes.len() {
        exercise(&bytes[..length]);
    }
}

#[test]
fn a_model_with_one_bit_flipped_is_an_error_or_a_model() {
    let bytes = residual().bytes();
    for position in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[position / 8] ^= 1 << (position % 8);
        exercise(&damaged);
    }
}

#[test]
fn a_convolution_with_one_bit_flipped_is_an_error_or_a_model() {
    let bytes = Build::default()
        .input("x", &[1, 2, 5, 5])
        .weight("w", &[2, 1, 3, 3])
        .constant("shape", &[2], &[1, -1])
        .node_with(
            "Conv",
            "x w -> a",
            vec![
                common::int("group", 2),
                common::ints("pads", &[1, 1, 1, 1]),
                common::ints("strides", &[2, 2]),
            ],
        )
        .node("Reshape", "a shape -> b")
        .node_with("Softmax", "b -> y", vec![common::int("axis", -1)])
        .output("y", &[1, 18])
        .bytes();
    for position in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[position / 8] ^= 1 << (position % 8);
        exercise(&damaged);
    }
}

#[test]
fn bytes_that_are_no_protobuf_are_refused() {
    assert!(matches!(Model::from_bytes(b"not a model at all"), Err(Error::Decode { bytes: 18, .. })));
}

#[test]
fn a_model_without_a_graph_is_refused() {
    assert!(matches!(Model::from_bytes(&[]), Err(Error::Invalid { .. })));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Model::read("no/such/model.onnx").unwrap_err();
    assert!(error.to_string().starts_with("no/such/model.onnx: "), "{error}");
}

#[test]
fn a_tensor_that_nothing_produces_is_refused() {
    let build = Build::default().input("x", &[1]).node("Add", "x ghost -> y").output("y", &[1]);
    let error = error(build);
    assert!(matches!(&error, Error::MissingTensor { name, .. } if name == "ghost"), "{error}");
}

#[test]
fn an_output_that_nothing_produces_is_refused() {
    let build = Build::default().input("x", &[1]).node("Relu", "x -> y").output("z", &[1]);
    assert!(matches!(error(build), Error::MissingTensor { name, .. } if name == "z"));
}

#[test]
fn a_tensor_read_before_it_is_produced_is_refused() {
    let build =
        Build::default().input("x", &[1]).node("Relu", "a -> y").node("Relu", "x -> a").output("y", &[1]);
    assert!(matches!(error(build), Error::MissingTensor { name, .. } if name == "a"));
}

#[test]
fn a_name_produced_twice_is_refused_with_both_producers() {
    let build =
        Build::default().input("x", &[1]).node("Relu", "x -> y").node("Neg", "x -> y").output("y", &[1]);
    let text = error(build).to_string();
    assert!(text.ends_with("`y` is produced by node 0 (Relu) and again by node 1 (Neg)"), "{text}");
}

#[test]
fn duplicated_inputs_initialisers_and_outputs_are_refused() {
    let inputs = residual().input("x", &[1, 2]);
    let initialisers = residual().weight("w", &[2, 2]);
    let outputs = residual().output("y", &[1, 2]);
    for build in [inputs, initialisers, outputs] {
        assert!(matches!(error(build), Error::DuplicateName { .. }));
    }
}

#[test]
fn an_input_with_a_default_value_is_no_duplicate() {
    let model = residual().input("w", &[2, 2]).model();
    let halves = split(&model, "a").unwrap();
    assert_eq!(Engine::load(&halves.tail).unwrap().input_name(), "a");
}

#[test]
fn a_constant_shorter_than_its_shape_is_refused() {
    let mut proto = residual().proto();
    proto.graph.as_mut().unwrap().initializer[0].float_data.pop();
    let error = Model::from_bytes(&proto.encode_to_vec()).unwrap_err();
    assert!(matches!(error, Error::ConstantSize { expected: 4, found: 3, .. }), "{error}");
}

#[test]
fn raw_data_that_end_inside_an_element_are_refused() {
    for length in [15, 17] {
        let mut proto = residual().proto();
        let weight = &mut proto.graph.as_mut().unwrap().initializer[0];
        weight.float_data.clear();
        weight.raw_data = vec![0; length];
        let error = Model::from_bytes(&proto.encode_to_vec()).unwrap_err();
        assert!(matches!(error, Error::ConstantSize { expected: 4, .. }), "{length} bytes: {error}");
    }
}

#[test]
fn data_in_a_separate_file_are_refused() {
    let mut proto = residual().proto();
    proto.graph.as_mut().unwrap().initializer[0].data_location = Some(1);
    let error = Model::from_bytes(&proto.encode_to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "constant `w`: data in a separate file is not supported");
}

#[test]
fn a_shape_whose_product_overflows_is_refused() {
    let mut proto = residual().proto();
    proto.graph.as_mut().unwrap().initializer[0].dims = vec![i64::MAX, i64::MAX];
    assert!(matches!(Model::from_bytes(&proto.encode_to_vec()), Err(Error::Invalid { .. })));
}

#[test]
fn an_input_too_large_to_hold_is_refused() {
    let model =
        Build::default().input("x", &[1 << 40, 1 << 40]).node("Relu", "x -> y").output("y", &[]).model();
    assert!(matches!(cuts(&model), Err(Error::LimitExceeded { .. })));
}

#[test]
fn the_documented_model_is_the_one_in_these_tests() {
    assert_eq!(include_bytes!("models/residual.onnx").as_slice(), residual().bytes());
}
