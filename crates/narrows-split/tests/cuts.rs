//! Which tensors are cuts, and what is said about them.

mod common;

use common::{Build, demo_model, int, ints, residual, tensor};
use narrows_split::{Cut, Error, Model, Place, cuts};

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

#[test]
fn an_open_dimension_beyond_the_batch_is_an_error_that_names_it() {
    let model = Build::default().input("x", &[1, -1]).node("Relu", "x -> y").output("y", &[1, -1]).model();
    let error = cuts(&model).unwrap_err();
    assert!(matches!(&error, Error::UnknownShape { name, .. } if name == "x"), "{error}");
    assert!(error.to_string().contains("dimension 1 is `batch`"), "{error}");
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
