//! Which tensors are cuts, and what is said about them.

mod common;

use common::{Build, demo_model, int, ints, residual, tensor};
use narrows_split::{Cut, Error, Model, Origin, Place, Sizes, cuts, cuts_for};
use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataType;

fn names(model: &Model) -> Vec<String> {
    cuts(model).unwrap().into_iter().map(|cut| cut.name).collect()
}

fn cut(model: &Model, name: &str) -> Cut {
    cuts(model).unwrap().into_iter().find(|cut| cut.name == name).unwrap()
}

#[test]
fn inside_a_residual_branch_there_is_no_cut() {
    assert_eq!(names(&residual().model()), ["x", "a", "c", "y"]);
}

#[test]
fn the_input_and_the_output_are_trivial_cuts() {
    let places: Vec<_> = cuts(&residual().model()).unwrap().iter().map(|cut| cut.place).collect();
    assert_eq!(places, [Place::Input, Place::Inner, Place::Inner, Place::Output]);
}

#[test]
fn two_inputs_have_no_cut_before_they_meet() {
    let model = Build::default()
        .input("left", &[1, 4])
        .input("right", &[1, 4])
        .node("Relu", "left -> l")
        .node("Relu", "right -> r")
        .node("Add", "l r -> sum")
        .node("Relu", "sum -> y")
        .output("y", &[1, 4])
        .model();
    assert_eq!(names(&model), ["sum", "y"]);
}

#[test]
fn a_branch_of_constants_only_is_not_live() {
    let model = Build::default()
        .input("x", &[1, 4])
        .weight("w", &[1, 4])
        .node_with("Constant", "-> k", vec![tensor("value", common::floats("", &[1, 4], vec![1.0; 4]))])
        .node("Add", "w k -> wk")
        .node("Relu", "x -> a")
        .node("Relu", "a -> b")
        .node("Add", "b wk -> y")
        .output("y", &[1, 4])
        .model();
    assert_eq!(names(&model), ["x", "a", "b", "y"]);
}

#[test]
fn a_branch_that_no_output_needs_hides_no_cut() {
    let model = Build::default()
        .input("x", &[1, 4])
        .node("Relu", "x -> a")
        .node("Relu", "a -> b")
        .node("Add", "x a -> unused")
        .node("Relu", "b -> y")
        .output("y", &[1, 4])
        .model();
    assert_eq!(names(&model), ["x", "a", "b", "y"]);
}

#[test]
fn an_output_in_the_middle_stays_live_to_the_end() {
    let model = Build::default()
        .input("x", &[1, 4])
        .node("Relu", "x -> a")
        .node("Relu", "a -> features")
        .node("Relu", "features -> b")
        .node("Relu", "b -> y")
        .output("features", &[1, 4])
        .output("y", &[1, 4])
        .model();
    assert_eq!(names(&model), ["x", "a", "features"]);
}

#[test]
fn random_numbers_are_data_and_not_constants() {
    let model = Build::default()
        .input("x", &[1, 4])
        .node_with("RandomUniform", "-> noise", vec![ints("shape", &[1, 4])])
        .node("Relu", "x -> a")
        .node("Add", "a noise -> y")
        .output("y", &[1, 4])
        .model();
    assert_eq!(names(&model), ["x", "y"]);
}

#[test]
fn an_open_batch_is_taken_as_one() {
    let model = Build::default()
        .input("x", &[-1, 4])
        .note("a", &[-1, 4])
        .node("Relu", "x -> a")
        .node("Relu", "a -> y")
        .output("y", &[-1, 4])
        .model();
    assert_eq!(cut(&model, "a").shape, [1, 4]);
}

/// Tokens of a given length, whose dimension is called `batch` first and `length` second.
fn tokens() -> Model {
    let mut proto = Build::default()
        .input("x", &[-1, -1, 4])
        .node("Relu", "x -> a")
        .node("Relu", "a -> y")
        .output("y", &[])
        .proto();
    let graph = proto.graph.as_mut().unwrap();
    rename(graph.input[0].r#type.as_mut().unwrap(), Some("length"));
    Model::from_bytes(&proto.encode_to_vec()).unwrap()
}

/// Name the second dimension, or take its name away.
fn rename(kind: &mut tract_onnx::pb::TypeProto, symbol: Option<&str>) {
    use tract_onnx::pb::{tensor_shape_proto::dimension, type_proto};
    let Some(type_proto::Value::TensorType(tensor)) = &mut kind.value else { panic!("no tensor") };
    let dim = &mut tensor.shape.as_mut().unwrap().dim[1];
    dim.value = symbol.map(|symbol| dimension::Value::DimParam(symbol.into()));
}

#[test]
fn an_open_dimension_has_the_size_it_is_given() {
    let shape = |sizes: Sizes| cuts_for(&tokens(), &sizes).unwrap()[1].shape.clone();
    assert_eq!(shape(Sizes::default()), [1, Sizes::DEFAULT, 4]);
    assert_eq!(shape(Sizes::default().with("length", 7).with("batch", 2)), [2, 7, 4]);
}

#[test]
fn an_open_dimension_that_the_model_does_not_have_is_refused_with_those_it_has() {
    let error = cuts_for(&tokens(), &Sizes::default().with("width", 7)).unwrap_err();
    assert_eq!(error.to_string(), "the model has no open dimension `width`; it has `batch`, `length`");
}

#[test]
fn an_open_dimension_without_a_name_is_an_error_that_names_the_input() {
    let mut proto = Build::default().input("x", &[1, -1]).node("Relu", "x -> y").output("y", &[]).proto();
    rename(proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap(), None);
    let error = cuts(&Model::from_bytes(&proto.encode_to_vec()).unwrap()).unwrap_err();
    assert!(matches!(&error, Error::UnknownShape { name, .. } if name == "x"), "{error}");
    assert!(error.to_string().contains("dimension 1 is open and has no name"), "{error}");
}

/// A layer that adds `scale(mask)` to its input, whatever `more` adds to the model, and a product of `last` with the mask.
fn masked(mask_type: DataType, last: &str, more: impl Fn(Build) -> Build) -> Model {
    let build = Build::default()
        .input("x", &[1, 8, 16])
        .input("mask", &[1, 8, 1])
        .weight("w", &[16, 16])
        .node("MatMul", "x w -> a")
        .node_with("Cast", "mask -> m", vec![int("to", DataType::Float as i64)])
        .node("Add", "a m -> b")
        .node("MatMul", "b w -> c");
    let mut proto = more(build).node("Mul", &format!("{last} m -> y")).output("y", &[1, 8, 16]).proto();
    let kind = proto.graph.as_mut().unwrap().input[1].r#type.as_mut().unwrap();
    let Some(tract_onnx::pb::type_proto::Value::TensorType(tensor)) = &mut kind.value else {
        panic!("no tensor")
    };
    tensor.elem_type = mask_type as i32;
    Model::from_bytes(&proto.encode_to_vec()).unwrap()
}

#[test]
fn a_mask_of_integers_is_recomputed_at_the_side() {
    let model = masked(DataType::Int64, "c", |build| build);
    assert_eq!(names(&model), ["a", "b", "c", "y"]);
    let cut = cut(&model, "b");
    let side: Vec<_> = cut.side.iter().map(|side| (side.name.as_str(), side.bytes, side.origin)).collect();
    assert_eq!(side, [("mask", 8 * 8, Origin::Input)]);
}

#[test]
fn a_mask_of_floats_is_data() {
    // It would have to cross as it is: nothing says that it is less than the payload is.
    assert_eq!(names(&masked(DataType::Float, "c", |build| build)), ["y"]);
}

#[test]
fn what_takes_work_to_recompute_is_data() {
    // The same mask, after a product with as many multiply-adds as a layer has.
    let heavy = |build: Build| {
        build
            .weight("v", &[1, 256])
            .weight("u", &[256, 16])
            .node("MatMul", "m v -> wide")
            .node("MatMul", "wide u -> h")
            .node("Add", "c h -> d")
    };
    let model = masked(DataType::Int64, "d", heavy);
    assert!(!names(&model).contains(&"a".into()), "{:?}", names(&model));
    assert!(names(&model).contains(&"d".into()), "{:?}", names(&model));
}

#[test]
fn a_side_tensor_larger_than_the_payload_is_no_side_tensor() {
    let model = Build::default()
        .input("x", &[1, 2])
        .input("mask", &[1, 64])
        .node("Relu", "x -> a")
        .node("Relu", "a -> b")
        .node_with("Cast", "mask -> m", vec![int("to", DataType::Float as i64)])
        .node_with("ReduceMean", "m -> r", vec![ints("axes", &[1])])
        .node("Add", "b r -> y")
        .output("y", &[1, 2]);
    let mut proto = model.proto();
    let kind = proto.graph.as_mut().unwrap().input[1].r#type.as_mut().unwrap();
    let Some(tract_onnx::pb::type_proto::Value::TensorType(tensor)) = &mut kind.value else {
        panic!("no tensor")
    };
    tensor.elem_type = DataType::Int64 as i32;
    assert_eq!(names(&Model::from_bytes(&proto.encode_to_vec()).unwrap()), ["y"]);
}

#[test]
fn the_shape_of_a_tensor_that_stays_behind_is_taken_of_one_like_it_or_sent() {
    let model = |like: &[i64]| {
        Build::default()
            .input("x", &[1, 4])
            .weight("w", &[4, like[1]])
            .node("Relu", "x -> a")
            .node("MatMul", "a w -> b")
            .node("Shape", "a -> shape")
            .node_with("ConstantOfShape", "shape -> zeros", vec![])
            .node_with("ReduceSum", "zeros -> sum", vec![])
            .node("Add", "b sum -> y")
            .output("y", like)
            .model()
    };
    let side = |model: &Model| {
        cut(model, "b").side.iter().map(|side| (side.name.clone(), side.origin)).collect::<Vec<_>>()
    };
    assert_eq!(side(&model(&[1, 4])), []);
    assert_eq!(side(&model(&[1, 5])), [("shape".to_owned(), Origin::Head)]);
}

#[test]
fn a_tensor_beyond_the_limit_is_refused_before_it_is_allocated() {
    let model = Build::default()
        .input("x", &[1, 1, 4, 4])
        .weight("w", &[1, 1, 3, 3])
        .node_with("Conv", "x w -> y", vec![ints("pads", &[1 << 30, 1 << 30, 1, 1])])
        .output("y", &[])
        .model();
    assert!(matches!(cuts(&model), Err(Error::LimitExceeded { .. })));
}

#[test]
fn grouped_convolutions_count_the_channels_of_their_group() {
    let model = Build::default()
        .input("x", &[1, 8, 10, 10])
        .weight("w", &[16, 2, 3, 3])
        .node_with("Conv", "x w -> y", vec![int("group", 4)])
        .output("y", &[1, 16, 8, 8])
        .model();
    assert_eq!(cut(&model, "y").macs_before, 16 * 8 * 8 * 2 * 3 * 3);
}

#[test]
fn transposed_convolutions_count_what_each_input_spreads_to() {
    let model = Build::default()
        .input("x", &[1, 8, 5, 5])
        .weight("w", &[8, 4, 2, 2])
        .node_with("ConvTranspose", "x w -> y", vec![ints("strides", &[2, 2])])
        .output("y", &[1, 4, 10, 10])
        .model();
    assert_eq!(cut(&model, "y").macs_before, 8 * 5 * 5 * 4 * 2 * 2);
}

#[test]
fn transposed_operands_of_a_matrix_product_count_the_inner_dimension() {
    let model = Build::default()
        .input("x", &[7, 3])
        .weight("w", &[5, 7])
        .node_with("Gemm", "x w -> y", vec![int("transA", 1), int("transB", 1)])
        .output("y", &[3, 5])
        .model();
    assert_eq!(cut(&model, "y").macs_before, 3 * 5 * 7);
}

#[test]
fn batched_matrix_products_count_every_batch() {
    let model = Build::default()
        .input("x", &[6, 2, 3])
        .weight("w", &[6, 3, 4])
        .node("MatMul", "x w -> y")
        .output("y", &[6, 2, 4])
        .model();
    assert_eq!(cut(&model, "y").macs_before, 6 * 2 * 4 * 3);
}

#[test]
fn a_constant_used_on_both_sides_weighs_on_both() {
    let model = Build::default()
        .input("x", &[1, 4])
        .weight("shared", &[4])
        .weight("late", &[4])
        .node("Add", "x shared -> a")
        .node("Mul", "a shared -> b")
        .node("Add", "b late -> y")
        .output("y", &[1, 4])
        .model();
    let weights: Vec<_> =
        cuts(&model).unwrap().iter().map(|cut| (cut.weight_bytes_before, cut.weight_bytes_after)).collect();
    assert_eq!(weights, [(0, 32), (16, 32), (16, 16), (32, 0)]);
}

#[test]
fn the_demo_network_has_its_thirteen_cuts() {
    let cuts = cuts(&demo_model()).unwrap();
    let named: Vec<_> = cuts.iter().filter(|cut| !cut.name.starts_with('/')).collect();
    let found: Vec<_> =
        named.iter().map(|cut| (cut.index, cut.name.as_str(), cut.shape.as_slice())).collect();
    let expected: [(_, _, &[usize]); 6] = [
        (0, "image", &[1, 1, 28, 28]),
        (4, "stem", &[1, 32, 28, 28]),
        (6, "layer1", &[1, 32, 28, 28]),
        (8, "layer2", &[1, 64, 14, 14]),
        (10, "layer3", &[1, 128, 7, 7]),
        (12, "logits", &[1, 10]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn multiply_adds_of_the_two_sides_add_up_at_every_cut_of_the_demo_network() {
    let cuts = cuts(&demo_model()).unwrap();
    let total = 28 * 28 * 32 * 9 + 2 * 28 * 28 * 32 * 32 * 9  // stem, layer1
        + 14 * 14 * 64 * (32 * 9 + 64 * 9 + 32) + 7 * 7 * 128 * (64 * 9 + 128 * 9 + 64)  // layer2, layer3
        + 128 * 10;
    for cut in &cuts {
        assert_eq!(cut.macs_before + cut.macs_after, total, "{}", cut.name);
    }
}
