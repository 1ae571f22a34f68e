use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, StringStringEntryProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use crate::constant::Dtype;
use crate::cuts::{Cut, Place, cuts, producer, sweep};
use crate::graph::{Graph, Source, Span};
use crate::{Error, Model, Result};

/// How many cuts an error proposes for a name that doesn't exist.
const PROPOSED: usize = 5;

/// A model cut in two.
#[derive(Clone, Debug)]
pub struct Split {
    /// The near side: the model's inputs to the cut tensor.
    pub head: Model,
    /// The far side: the cut tensor to the model's outputs.
    pub tail: Model,
    /// Where it was cut.
    pub cut: Cut,
}

/// Cut a model at an inner cut, named by its tensor.
///
/// Both sides are complete ONNX models. Each keeps the nodes, constants and notes on shapes that it needs, a
/// constant needed on both sides going to both; nodes that no output needs go to neither. A cut tensor that is at
/// the same time an output of the model is an output of the head only. Both carry three metadata properties:
/// `narrows.role` (`head` or `tail`), `narrows.cut` (the tensor's name) and `narrows.model_sha256` (the hash of
/// the whole model), by which two ends can check that they belong together.
///
/// # Errors
/// [`Error::NoSuchTensor`], [`Error::NotACut`] or [`Error::NothingToSplit`] if `at` doesn't name an inner cut, each
/// with the nearest names that do; otherwise as [`cuts()`].
pub fn split(model: &Model, at: &str) -> Result<Split> {
    let graph = model.graph()?;
    let cuts = cuts(model)?;
    let cut = cuts.iter().find(|cut| cut.name == at && cut.place == Place::Inner);
    let Some((cut, position)) = cut.zip(producer(&graph, at)) else {
        return Err(why_not(&graph, &cuts, at));
    };
    let seam = seam(&graph, cut)?;
    let head = head(&graph, position, &seam);
    let tail = tail(&graph, position, &seam);
    Ok(Split { head: side(model, head, "head", at)?, tail: side(model, tail, "tail", at)?, cut: cut.clone() })
}

fn head(graph: &Graph<'_>, position: usize, seam: &ValueInfoProto) -> GraphProto {
    let mut half = half(graph, |span| span.first <= position);
    half.input = inputs(graph, |name| match graph.span(name) {
        Some(span) => span.first <= position,
        // An input that nothing reads stays in the head, whose callers know it.
        None => !graph.is_constant(name),
    });
    half.output = vec![seam.clone()];
    half.value_info.retain(|info| info.name != seam.name);
    half
}

fn tail(graph: &Graph<'_>, position: usize, seam: &ValueInfoProto) -> GraphProto {
    let mut half = half(graph, |span| span.last > position);
    half.input = vec![seam.clone()];
    half.input.extend(inputs(graph, |name| {
        graph.is_constant(name) && graph.span(name).is_some_and(|span| span.last > position)
    }));
    half.output = graph.proto.output.iter().filter(|output| output.name != seam.name).cloned().collect();
    half
}

fn inputs(graph: &Graph<'_>, is_wanted: impl Fn(&str) -> bool) -> Vec<ValueInfoProto> {
    graph.proto.input.iter().filter(|input| is_wanted(&input.name)).cloned().collect()
}

/// The nodes and constants needed somewhere in a range of positions, and what is noted about their tensors.
fn half(graph: &Graph<'_>, is_inside: impl Fn(Span) -> bool) -> GraphProto {
    let whole = graph.proto;
    let has_node = |position| graph.node_span(position).is_some_and(&is_inside);
    let has_tensor = |name: &str| match graph.sources.get(name) {
        Some(&Source::Node(position)) => has_node(position),
        Some(Source::Initialiser(_)) => graph.span(name).is_some_and(&is_inside),
        Some(Source::Input(_)) | None => false,
    };
    let nodes = whole.node.iter().enumerate().filter(|(position, _)| has_node(*position));
    let annotations = whole.quantization_annotation.iter();
    GraphProto {
        node: nodes.map(|(_, node)| node.clone()).collect(),
        name: whole.name.clone(),
        doc_string: whole.doc_string.clone(),
        initializer: whole
            .initializer
            .iter()
            .filter(|constant| has_tensor(&constant.name))
            .cloned()
            .collect(),
        value_info: whole.value_info.iter().filter(|info| has_tensor(&info.name)).cloned().collect(),
        quantization_annotation: annotations.filter(|note| has_tensor(note.tensor_name())).cloned().collect(),
        ..GraphProto::default()
    }
}

fn side(model: &Model, graph: GraphProto, role: &str, at: &str) -> Result<Model> {
    let whole = model.proto();
    let added = [("narrows.role", role), ("narrows.cut", at), ("narrows.model_sha256", model.sha256())];
    let kept = whole.metadata_props.iter().filter(|entry| added.iter().all(|(key, _)| entry.key != *key));
    let added = added.map(|(key, value)| StringStringEntryProto { key: key.into(), value: value.into() });
    Model::from_proto(ModelProto {
        graph: Some(graph),
        metadata_props: kept.cloned().chain(added).collect(),
        // How to train the whole says nothing about a half.
        training_info: Vec::new(),
        ir_version: whole.ir_version,
        opset_import: whole.opset_import.clone(),
        producer_name: whole.producer_name.clone(),
        producer_version: whole.producer_version.clone(),
        domain: whole.domain.clone(),
        model_version: whole.model_version,
        doc_string: whole.doc_string.clone(),
        functions: whole.functions.clone(),
    })
}

/// The cut tensor as an output of the head and an input of the tail.
///
/// What the file says of its shape is kept, with the name of an open batch, if it agrees with the analysis.
fn seam(graph: &Graph<'_>, cut: &Cut) -> Result<ValueInfoProto> {
    let mut noted = graph.proto.value_info.iter().chain(&graph.proto.output);
    if let Some(noted) = noted.find(|info| info.name == cut.name && agrees(info, &cut.shape)) {
        return Ok(noted.clone());
    }
    let dtype = Dtype::of_name(cut.dtype)
        .ok_or_else(|| Error::Unsupported { place: format!("`{}`", cut.name), what: cut.dtype.into() })?;
    let dims = cut.shape.iter().map(|&dim| Dimension {
        value: Some(dimension::Value::DimValue(dim as i64)),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: dtype.onnx as i32,
        shape: Some(TensorShapeProto { dim: dims.collect() }),
    };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    Ok(ValueInfoProto { name: cut.name.clone(), r#type: Some(kind), ..ValueInfoProto::default() })
}

/// Whether a shape noted in the file is the analysed one, but for an open batch of one.
fn agrees(info: &ValueInfoProto, shape: &[usize]) -> bool {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &info.r#type else {
        return false;
    };
    let Some(noted) = &tensor.shape else { return false };
    noted.dim.len() == shape.len()
        && noted.dim.iter().zip(shape).enumerate().all(|(axis, (dim, &size))| match &dim.value {
            Some(dimension::Value::DimValue(dim)) => usize::try_from(*dim) == Ok(size),
            _ => axis == 0 && size == 1,
        })
}

/// Why a name is not that of an inner cut.
fn why_not(graph: &Graph<'_>, cuts: &[Cut], at: &str) -> Error {
    let inner = || cuts.iter().filter(|cut| cut.place == Place::Inner);
    let name = at.to_owned();
    let Some(&source) = graph.sources.get(at) else {
        let mut nearest: Vec<_> = inner().map(|cut| cut.name.clone()).collect();
        nearest.sort_by_key(|candidate| edit_distance(at, candidate));
        nearest.truncate(PROPOSED);
        return Error::NoSuchTensor { name, nearest };
    };
    let position = match source {
        Source::Node(position) => Some(position),
        Source::Input(_) | Source::Initialiser(_) => None,
    };
    let node_of = |cut: &Cut| producer(graph, &cut.name);
    let before = inner().rfind(|cut| node_of(cut) < position);
    let after = inner().find(|cut| node_of(cut) > position);
    let nearest = before.into_iter().chain(after).map(|cut| cut.name.clone()).collect();
    let reason = match cuts.iter().find(|cut| cut.name == at).map(|cut| cut.place) {
        Some(Place::Input) => Some("the model's input"),
        Some(Place::Output) => Some("the model's output"),
        _ if graph.is_constant(at) => Some("a constant"),
        _ if graph.span(at).is_none() => Some("needed by no output of the model"),
        _ => None,
    };
    if let Some(reason) = reason {
        return Error::NothingToSplit { name, reason, nearest };
    }
    let live = sweep(graph).find(|step| step.after == position).map_or_else(Vec::new, |step| step.live);
    let live = live.into_iter().filter(|&other| other != at).map(str::to_owned).collect();
    Error::NotACut { name, live, nearest }
}

/// Insertions, deletions and replacements that turn one text into the other (Levenshtein 1965).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut distances: Vec<usize> = (0..=to.len()).collect();
    for (row, here) in from.chars().enumerate() {
        let mut diagonal = distances[0];
        distances[0] = row + 1;
        for (column, there) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(here != *there);
            diagonal = distances[column + 1];
            distances[column + 1] = replaced.min(diagonal + 1).min(distances[column] + 1);
        }
    }
    distances[to.len()]
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn edit_distance_counts_insertions_deletions_and_replacements() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("layer2", "layer2"), 0);
    }
}
