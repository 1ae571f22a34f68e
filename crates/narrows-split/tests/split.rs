//! What the two halves hold, and why a name is refused.

mod common;

use common::{Build, bits, demo_model, residual, tensor};
use narrows_split::{Engine, Error, Model, split};
use prost::Message as _;
use tract_onnx::pb::{GraphProto, ModelProto};

fn proto(model: &Model) -> ModelProto {
    ModelProto::decode(model.to_bytes().as_slice()).unwrap()
}

fn graph(model: &Model) -> GraphProto {
    proto(model).graph.unwrap()
}

fn initialisers(model: &Model) -> Vec<String> {
    graph(model).initializer.into_iter().map(|tensor| tensor.name).collect()
}

/// `w` and the constant `k` are needed on both sides of `b`, `early` before it, `late` after it.
fn shared() -> Build {
    Build::default()
        .input("x", &[1, 4])
        .weight("w", &[4])
        .weight("early", &[4])
        .weight("late", &[4])
        .note("a", &[1, 4])
        .note("b", &[1, 4])
        .note("c", &[1, 4])
        .node_with("Constant", "-> k", vec![tensor("value", common::floats("", &[4], vec![0.5; 4]))])
        .node("Mul", "w k -> wk")
        .node("Add", "x early -> a")
        .node("Add", "a wk -> b")
        .node("Mul", "b wk -> c")
        .node("Add", "c late -> y")
        .output("y", &[1, 4])
}

#[test]
fn each_side_keeps_the_constants_it_needs_and_shared_ones_go_to_both() {
    let halves = split(&shared().model(), "b").unwrap();
    assert_eq!(initialisers(&halves.head), ["w", "early"]);
    assert_eq!(initialisers(&halves.tail), ["w", "late"]);
}

#[test]
fn constant_nodes_go_where_they_are_needed() {
    let halves = split(&shared().model(), "b").unwrap();
    let operators = |model| graph(model).node.into_iter().map(|node| node.op_type).collect::<Vec<_>>();
    assert_eq!(operators(&halves.head), ["Constant", "Mul", "Add", "Add"]);
    assert_eq!(operators(&halves.tail), ["Constant", "Mul", "Mul", "Add"]);
}

#[test]
fn the_cut_tensor_is_described_once_on_each_side() {
    let halves = split(&shared().model(), "b").unwrap();
    let (head, tail) = (graph(&halves.head), graph(&halves.tail));
    assert_eq!(head.output, tail.input);
    let notes =
        |graph: &GraphProto| graph.value_info.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    assert_eq!(notes(&head), ["a"]);
    assert_eq!(notes(&tail), ["c"]);
}

#[test]
fn a_cut_tensor_without_a_note_gets_its_shape_from_the_analysis() {
    let halves = split(&residual().model(), "a").unwrap();
    let noted = split(&residual().note("a", &[1, 2]).model(), "a").unwrap();
    assert_eq!(graph(&halves.tail).input, graph(&noted.tail).input);
}

#[test]
fn an_open_batch_stays_open_in_the_halves() {
    let model = Build::default()
        .input("x", &[-1, 4])
        .note("a", &[-1, 4])
        .node("Relu", "x -> a")
        .node("Relu", "a -> y")
        .output("y", &[-1, 4])
        .model();
    let halves = split(&model, "a").unwrap();
    assert_eq!(graph(&halves.tail).input, graph(&model).value_info);
}

#[test]
fn opsets_versions_and_producer_are_kept() {
    let whole = residual().model();
    let halves = split(&whole, "a").unwrap();
    let about = |model: &Model| {
        let proto = proto(model);
        (proto.ir_version, proto.opset_import, proto.producer_name, proto.producer_version)
    };
    assert_eq!(about(&halves.head), about(&whole));
    assert_eq!(about(&halves.tail), about(&whole));
}

#[test]
fn the_halves_say_what_they_are_halves_of() {
    let whole = residual().model();
    let halves = split(&whole, "a").unwrap();
    for (model, role) in [(&halves.head, "head"), (&halves.tail, "tail")] {
        assert_eq!(model.metadata("narrows.role"), Some(role));
        assert_eq!(model.metadata("narrows.cut"), Some("a"));
        assert_eq!(model.metadata("narrows.model_sha256"), Some(whole.sha256()));
        assert_eq!(model.metadata("author"), Some("nobody"));
    }
}

#[test]
fn the_hash_of_a_model_is_the_sha_256_of_its_file() {
    // Printed by coreutils' sha256sum for tests/models/residual.onnx.
    let model = Model::from_bytes(include_bytes!("models/residual.onnx")).unwrap();
    assert_eq!(model.sha256(), include_str!("models/residual.sha256").trim());
}

#[test]
fn a_half_can_be_split_again() {
    let whole = residual().model();
    let first = split(&whole, "a").unwrap();
    let second = split(&first.tail, "c").unwrap();
    let run = |model: &Model, input: &[f32]| Engine::load(model).unwrap().run(input).unwrap();
    let x = [0.25, 0.75];
    let y = run(&second.tail, &run(&second.head, &run(&first.head, &x)));
    assert_eq!(bits(&y), bits(&run(&whole, &x)));
    assert_eq!(second.head.metadata("narrows.model_sha256"), Some(first.tail.sha256()));
}

#[test]
fn an_output_in_the_middle_that_is_cut_comes_from_the_head() {
    let model = Build::default()
        .input("x", &[1, 4])
        .node("Relu", "x -> features")
        .node("Relu", "features -> y")
        .output("features", &[1, 4])
        .output("y", &[1, 4])
        .model();
    let halves = split(&model, "features").unwrap();
    let outputs = |model| graph(model).output.into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!(outputs(&halves.head), ["features"]);
    assert_eq!(outputs(&halves.tail), ["y"]);
}

#[test]
fn what_a_nested_graph_captures_keeps_a_tensor_live() {
    let branch = |op: &str| {
        let graph = Build::default().node(op, "x -> inner").output("inner", &[1, 4]).0;
        let name = if op == "Relu" { "then_branch" } else { "else_branch" };
        let kind = tract_onnx::pb::attribute_proto::AttributeType::Graph as i32;
        tract_onnx::pb::AttributeProto {
            name: name.into(),
            r#type: kind,
            g: Some(graph),
            ..Default::default()
        }
    };
    let mut proto = Build::default()
        .input("x", &[1, 4])
        .node("Relu", "x -> a")
        .node_with("If", "which -> b", vec![branch("Relu"), branch("Neg")])
        .node("Add", "a b -> y")
        .output("y", &[1, 4])
        .proto();
    proto.graph.as_mut().unwrap().initializer.push(tract_onnx::pb::TensorProto {
        name: "which".into(),
        data_type: tract_onnx::pb::tensor_proto::DataType::Bool as i32,
        int32_data: vec![1],
        ..Default::default()
    });
    let model = Model::from_bytes(&proto.encode_to_vec()).unwrap();
    let error = split(&model, "a").unwrap_err();
    // `b` needs `x`, though only from inside its branches.
    assert!(matches!(&error, Error::NotACut { live, .. } if live == &["b"]), "{error}");
}

#[test]
fn a_tensor_that_is_no_cut_is_refused_with_the_other_live_tensors_and_the_nearest_cuts() {
    let error = split(&residual().model(), "b").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`b` alone is not a cut: `a` would have to cross with it; nearest cuts: `a`, `c`"
    );
}

#[test]
fn a_misspelt_name_is_refused_with_the_most_similar_cut_first() {
    let error = split(&demo_model(), "layer_2").unwrap_err();
    assert!(matches!(&error, Error::NoSuchTensor { nearest, .. } if nearest[0] == "layer2"), "{error}");
}

#[test]
fn the_input_the_output_and_constants_leave_nothing_to_split() {
    for (name, what) in [("x", "the model's input"), ("y", "the model's output"), ("w", "a constant")] {
        let error = split(&residual().model(), name).unwrap_err();
        assert!(matches!(&error, Error::NothingToSplit { reason, .. } if *reason == what), "{error}");
    }
}

#[test]
fn one_of_two_inputs_is_refused_with_the_other_one() {
    let model = Build::default()
        .input("left", &[1, 4])
        .input("right", &[1, 4])
        .node("Add", "left right -> sum")
        .node("Relu", "sum -> y")
        .output("y", &[1, 4])
        .model();
    let error = split(&model, "left").unwrap_err();
    assert!(matches!(&error, Error::NotACut { live, .. } if live == &["right"]), "{error}");
    assert!(error.to_string().ends_with("nearest cuts: `sum`"), "{error}");
}

#[test]
fn a_model_written_and_read_again_is_the_same() {
    let folder = std::env::temp_dir().join(format!("narrows-split-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let halves = split(&shared().model(), "b").unwrap();
    let path = folder.join("head.onnx");
    halves.head.write(&path).unwrap();
    halves.head.write(&path).unwrap();
    let again = Model::read(&path).unwrap();
    let files = std::fs::read_dir(&folder).unwrap().count();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(again.to_bytes(), halves.head.to_bytes());
    assert_eq!(again.sha256(), halves.head.sha256());
    assert_eq!(files, 1, "a partial file is left over");
}
