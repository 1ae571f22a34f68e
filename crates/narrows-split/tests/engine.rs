//! Running models: the halves give what the whole gives.

mod common;

use common::{Build, bits, demo_model, int, ints, random, residual};
use narrows_split::{Engine, Error, Model, Place, Runtime, Value, cuts, split};

/// Head then tail against the whole, at every inner cut.
fn assert_exact(model: &Model, inputs: &[Vec<f32>]) {
    let whole = Engine::load(model).unwrap();
    let expected: Vec<_> = inputs.iter().map(|input| bits(&whole.run(input).unwrap())).collect();
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "the outputs don't depend on the inputs");
    let cuts = cuts(model).unwrap();
    let inner: Vec<_> = cuts.iter().filter(|cut| cut.place == Place::Inner).collect();
    assert!(!inner.is_empty());
    for cut in inner {
        let halves = split(model, &cut.name).unwrap();
        let head = Engine::load(&halves.head).unwrap();
        let tail = Engine::load(&halves.tail).unwrap();
        assert_eq!(head.output_shape(), cut.shape);
        for (input, expected) in inputs.iter().zip(&expected) {
            let sent = head.run(input).unwrap();
            assert_eq!(&bits(&tail.run(&sent).unwrap()), expected, "cut at {}", cut.name);
        }
    }
}

fn inputs(elements: usize) -> Vec<Vec<f32>> {
    (0..4).map(|seed| random(elements, seed)).collect()
}

#[test]
fn the_halves_of_the_demo_network_give_the_bits_of_the_whole_at_every_cut() {
    assert_exact(&demo_model(), &inputs(28 * 28));
}

#[test]
fn a_normalisation_after_a_convolution_may_be_cut_off_exactly() {
    let model = Build::default()
        .input("x", &[1, 3, 9, 9])
        .weight("w", &[8, 3, 3, 3])
        .weight("scale", &[8])
        .weight("shift", &[8])
        .weight("mean", &[8])
        .weight("w2", &[8, 1, 3, 3]);
    let mut proto = model
        .node_with("Conv", "x w -> a", vec![ints("pads", &[1, 1, 1, 1])])
        .node("BatchNormalization", "a scale shift mean variance -> b")
        .node("Relu", "b -> c")
        .node_with("Conv", "c w2 -> d", vec![int("group", 8)])
        .node("Sigmoid", "d -> e")
        .node_with("MaxPool", "e -> f", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
        .node("GlobalAveragePool", "f -> g")
        .node_with("Flatten", "g -> y", vec![int("axis", 1)])
        .output("y", &[1, 8]);
    proto.0.initializer.push(common::floats("variance", &[8], vec![0.3, 1.7, 0.9, 2.1, 0.05, 1.1, 3.3, 0.7]));
    assert_exact(&proto.model(), &inputs(3 * 81));
}

#[test]
fn a_token_mixer_is_cut_exactly() {
    let model = Build::default()
        .input("x", &[1, 6, 16])
        .weight("q", &[16, 16])
        .weight("k", &[16, 16])
        .weight("v", &[16, 16])
        .weight("up", &[16, 32])
        .weight("bias", &[32])
        .weight("down", &[32, 16])
        .node("Tanh", "x -> t")
        .node("MatMul", "t q -> tq")
        .node("MatMul", "t k -> tk")
        .node("MatMul", "t v -> tv")
        .node_with("Transpose", "tk -> kt", vec![ints("perm", &[0, 2, 1])])
        .node("MatMul", "tq kt -> score")
        .node_with("Softmax", "score -> p", vec![int("axis", -1)])
        .node("MatMul", "p tv -> mixed")
        .node("MatMul", "mixed up -> u")
        .node("Add", "u bias -> ub")
        .node("Relu", "ub -> r")
        .node("MatMul", "r down -> y")
        .output("y", &[1, 6, 16])
        .model();
    assert_exact(&model, &inputs(6 * 16));
}

/// Operators that optimisers like to merge into their neighbours: paddings, constant factors and summands before and
/// after convolutions and matrix products, moves of axes, two matrix products in a row.
#[test]
fn neighbours_that_an_optimiser_would_merge_are_cut_exactly() {
    let model = Build::default()
        .input("image", &[1, 4, 8, 8])
        .weight("gain", &[1, 4, 1, 1])
        .weight("filter", &[6, 4, 3, 3])
        .weight("factor", &[1, 6, 1, 1])
        .weight("summand", &[6, 1, 1])
        .weight("point", &[6, 6, 1, 1])
        .weight("spread", &[6, 3, 2, 2])
        .constant("border", &[8], &[0, 0, 1, 1, 0, 0, 1, 1])
        .constant("tokens", &[3], &[1, 3, 256])
        .weight("first", &[3, 5])
        .weight("second", &[5, 7])
        .weight("stretch", &[7])
        .weight("offset", &[7])
        .node("Div", "image gain -> divided")
        .node("Pad", "divided border -> padded")
        .node("Conv", "padded filter -> convolved")
        .node("Mul", "convolved factor -> scaled")
        .node("Add", "scaled summand -> shifted")
        .node("HardSwish", "shifted -> activated")
        .node("Conv", "activated point -> mixed")
        .node_with("ConvTranspose", "mixed spread -> enlarged", vec![ints("strides", &[2, 2])])
        .node("Neg", "enlarged -> negated")
        .node_with("AveragePool", "negated -> pooled", vec![ints("kernel_shape", &[1, 1])])
        .node("Reshape", "pooled tokens -> flat")
        .node_with("Transpose", "flat -> rows", vec![ints("perm", &[0, 2, 1])])
        .node("MatMul", "rows first -> inner")
        .node("MatMul", "inner second -> outer")
        .node("Mul", "outer stretch -> stretched")
        .node("Add", "stretched offset -> moved")
        .node("Erf", "moved -> curved")
        .node_with("ReduceMean", "curved -> mean", vec![ints("axes", &[-1])])
        .node("Sub", "curved mean -> centred")
        .node("Mul", "centred centred -> squared")
        .node_with("ReduceMean", "squared -> y", vec![ints("axes", &[1])])
        .output("y", &[1, 1, 7])
        .model();
    assert_exact(&model, &inputs(4 * 64));
}

#[test]
fn a_slice_of_the_wrong_length_is_refused() {
    let engine = Engine::load(&residual().model()).unwrap();
    let error = engine.run(&[1.0; 3]).unwrap_err();
    assert!(matches!(error, Error::InputLength { expected: 2, found: 3, .. }));
}

#[test]
fn an_engine_knows_its_input_and_output() {
    let engine = Engine::load(&demo_model()).unwrap();
    assert_eq!((engine.input_name(), engine.input_shape()), ("image", [1, 1, 28, 28].as_slice()));
    assert_eq!((engine.output_name(), engine.output_shape()), ("logits", [1, 10].as_slice()));
}

#[test]
fn an_open_batch_runs_as_a_batch_of_one() {
    let model = Build::default().input("x", &[-1, 3]).node("Relu", "x -> y").output("y", &[-1, 3]).model();
    assert_eq!(Engine::load(&model).unwrap().run(&[-1.0, 0.0, 2.0]).unwrap(), [0.0, 0.0, 2.0]);
}

fn two_inputs() -> Model {
    Build::default()
        .input("left", &[1, 4])
        .input("right", &[1, 4])
        .node("Add", "left right -> y")
        .output("y", &[1, 4])
        .model()
}

fn row(values: [f32; 4]) -> Value {
    Value::new([1, 4], values.to_vec()).unwrap()
}

#[test]
fn a_model_with_two_inputs_takes_a_tensor_for_each() {
    let engine = Engine::load(&two_inputs()).unwrap();
    let (left, right) = (row([1.0, 2.0, 3.0, 4.0]), row([0.5; 4]));
    assert_eq!(engine.infer(&[&left, &right]).unwrap(), [row([1.5, 2.5, 3.5, 4.5])]);
}

#[test]
fn a_slice_for_a_model_with_two_inputs_is_refused_with_their_names() {
    let error = Engine::load(&two_inputs()).unwrap().run(&[1.0; 4]).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert!(error.to_string().contains("left, right"), "{error}");
}

#[test]
fn a_tensor_of_another_type_or_shape_is_refused() {
    let engine = Engine::load(&two_inputs()).unwrap();
    let right = row([0.0; 4]);
    for left in [Value::new([1, 4], vec![1_i64; 4]).unwrap(), Value::new([4], vec![1.0_f32; 4]).unwrap()] {
        let error = engine.infer(&[&left, &right]).unwrap_err();
        assert!(matches!(&error, Error::InputMismatch { name, .. } if name == "left"), "{error}");
        assert!(error.to_string().contains("takes float32 [1, 4]"), "{error}");
    }
    let error = engine.infer(&[&right]).unwrap_err();
    assert_eq!(error.to_string(), "the inputs must be `left`, `right`, got `1 tensors`");
}

#[test]
fn one_symbol_has_one_size_in_all_inputs() {
    let model = Build::default()
        .input("left", &[-1, 4])
        .input("right", &[-1, 4])
        .node("Add", "left right -> y")
        .output("y", &[-1, 4])
        .model();
    let engine = Engine::load(&model).unwrap();
    let rows = |count: usize| Value::new([count, 4], vec![1.0_f32; count * 4]).unwrap();
    assert_eq!(engine.infer(&[&rows(3), &rows(3)]).unwrap()[0].shape(), [3, 4]);
    let error = engine.infer(&[&rows(3), &rows(2)]).unwrap_err();
    assert_eq!(error.to_string(), "input `right` takes float32 [batch = 3, 4], got float32 [2, 4]");
}

#[test]
fn elements_that_do_not_fill_a_shape_are_no_tensor() {
    assert!(matches!(Value::new([2, 3], vec![0.0_f32; 5]), Err(Error::ValueLength { found: 5, .. })));
    assert!(Value::new([usize::MAX, 2], vec![0.0_f32; 2]).is_err());
    assert!(Value::new([0, 3], Vec::<i64>::new()).is_ok());
}

#[test]
fn a_runtime_is_known_by_its_name() {
    for (name, runtime) in Runtime::NAMES {
        assert_eq!(name.parse::<Runtime>().unwrap(), runtime);
        assert_eq!(runtime.to_string(), name);
    }
    assert!("tensorflow".parse::<Runtime>().is_err());
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn a_runtime_that_was_not_built_in_is_named() {
    let runtime: Runtime = "onnxruntime".parse().unwrap();
    let error = Engine::load_on(&two_inputs(), runtime).unwrap_err();
    assert!(matches!(error, Error::EngineMissing { .. }));
    assert!(error.to_string().contains("feature `onnxruntime`"), "{error}");
}

#[test]
fn an_operator_the_engine_does_not_know_is_an_error() {
    let model =
        Build::default().input("x", &[1, 4]).node("Frobnicate", "x -> y").output("y", &[1, 4]).model();
    assert!(Engine::load(&model).is_err());
}

#[test]
fn one_engine_serves_many_threads() {
    let engine = Engine::load(&demo_model()).unwrap();
    let image = random(28 * 28, 7);
    let expected = bits(&engine.run(&image).unwrap());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bits(&engine.run(&image).unwrap()))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), expected);
        }
    });
}
