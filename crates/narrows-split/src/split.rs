use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, StringStringEntryProto, TypeProto, ValueInfoProto, type_proto};

use crate::analysis::{Analysis, Analyst};
use crate::constant::Dtype;
use crate::cuts::{Costs, Cut, Place, find_cuts, producer};
use crate::graph::{Graph, Source};
use crate::open_dims::OpenDims;
use crate::seam::{Origin, Seam, Seams};
use crate::sizes::{Sizes, declaration};
use crate::state::State;
use crate::{Error, Model, Result};

/// How many cuts an error proposes for a name that doesn't exist.
const PROPOSED: usize = 5;

/// A model cut in two.
#[derive(Clone, Debug)]
pub struct Split {
    /// The near side: the model's inputs to the payload.
    pub head: Model,
    /// The far side: payload and side tensors to the model's outputs.
    pub tail: Model,
    /// Where it was cut.
    pub cut: Cut,
}

/// Cut a model at an inner cut, named by its payload.
///
/// Both sides are complete ONNX models. Each keeps the nodes, constants and notes on shapes that it needs, a
/// constant needed on both sides going to both; nodes that no output needs go to neither.
///
/// The head takes what it needs of the model's inputs. It gives the payload, then the shapes that the tail asks for,
/// then its own state. The tail takes the payload, then side tensors (inputs of the model, then shapes from the head),
/// then its own state, and gives the model's other outputs in their order. A payload that is at the same time an output of
/// the model is an output of the head only. Dimensions that the model leaves open stay open.
///
/// Both carry three metadata properties: `narrows.role` (`head` or `tail`), `narrows.cut` (the payload's name) and
/// `narrows.model_sha256` (the hash of the whole model), by which two ends can check that they belong together.
///
/// # Errors
/// [`Error::NoSuchTensor`], [`Error::NotACut`] or [`Error::NothingToSplit`] if `at` doesn't name an inner cut, each
/// with the nearest names that do; otherwise as [`cuts()`](crate::cuts()).
pub fn split(model: &Model, at: &str) -> Result<Split> {
    Splitter::new(model, &Sizes::default())?.split(at)
}

/// A model whose cuts are known, for splitting it at several of them one after the other.
pub struct Splitter<'m> {
    model: &'m Model,
    graph: Graph<'m>,
    analysis: Analysis,
    costs: Costs,
    open: OpenDims,
    cuts: Vec<Cut>,
}

impl<'m> Splitter<'m> {
    /// Find the cuts of a model, for open dimensions of these sizes.
    ///
    /// # Errors
    /// As [`cuts_for`](crate::cuts_for).
    pub fn new(model: &'m Model, sizes: &Sizes) -> Result<Self> {
        let graph = model.graph()?;
        let analyst = Analyst::new(model.proto());
        let analysis = analyst.analyse(&graph, &sizes.resolve(&graph)?)?;
        let open = OpenDims::new(&analyst, &graph)?;
        let costs = Costs::new(&graph, &analysis)?;
        let cuts = find_cuts(&graph, &analysis, &Seams::new(&graph, &analysis, &open, &costs), &costs)?;
        Ok(Self { model, graph, analysis, costs, open, cuts })
    }

    /// The cuts, from the model's input to its output.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Cut the model as [`split`] does.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], [`Error::NotACut`] or [`Error::NothingToSplit`] if `at` doesn't name an inner cut.
    pub fn split(&self, at: &str) -> Result<Split> {
        let graph = &self.graph;
        let seams = Seams::new(graph, &self.analysis, &self.open, &self.costs);
        let refused = || why_not(graph, &seams, &self.cuts, at);
        let cut = self.cuts.iter().find(|cut| cut.name == at && cut.place == Place::Inner);
        let (cut, (payload, _)) = cut.zip(graph.sources.get_key_value(at)).ok_or_else(refused)?;
        let seam = seams.at(payload).map_err(|_| refused())?;
        let halves = Halves { graph, analysis: &self.analysis, open: &self.open, seam: &seam };
        let (head, tail) = (halves.head()?, halves.tail()?);
        let side = |graph, role| side(self.model, graph, role, at);
        Ok(Split { head: side(head, "head")?, tail: side(tail, "tail")?, cut: cut.clone() })
    }
}

/// What the two graphs of a split are made of.
struct Halves<'s, 'a> {
    graph: &'s Graph<'a>,
    analysis: &'s Analysis,
    open: &'s OpenDims,
    seam: &'s Seam<'a>,
}

impl<'a> Halves<'_, 'a> {
    fn head(&self) -> Result<GraphProto> {
        let seam = self.seam;
        let mut output = vec![self.declared(seam.payload)?];
        for (name, origin) in &seam.side {
            if *origin == Origin::Head {
                output.push(self.declared(name)?);
            }
        }
        output.extend(self.outputs(|name| is_state(&seam.head_states, name)));
        let input = self.inputs(|name| {
            // An input that nothing reads stays in the head, whose callers know it.
            seam.head_reads.contains(name)
                || (!self.graph.is_constant(name) && self.graph.span(name).is_none())
        });
        Ok(self.half(input, output, &seam.head, &seam.head_reads))
    }

    fn tail(&self) -> Result<GraphProto> {
        let seam = self.seam;
        let mut input = vec![self.declared(seam.payload)?];
        for (name, origin) in &seam.side {
            match origin {
                Origin::Input => input.extend(self.inputs(|input| input == *name)),
                Origin::Head => input.push(self.declared(name)?),
            }
        }
        input.extend(self.inputs(|name| seam.tail_states.iter().any(|state| state.input == name)));
        input.extend(self.inputs(|name| self.graph.is_constant(name) && seam.tail_reads.contains(name)));
        let output = self.outputs(|name| name != seam.payload && !is_state(&seam.head_states, name));
        let mut half = self.half(input, output, &seam.tail, &seam.tail_reads);
        for (position, tensor) in &seam.stand_ins {
            let output = &self.graph.proto.node[*position].output;
            let node = half.node.iter_mut().find(|node| node.output == *output);
            if let Some(read) = node.and_then(|node| node.input.first_mut()) {
                (*tensor).clone_into(read);
            }
        }
        Ok(half)
    }

    /// Inputs of the whole model.
    fn inputs(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<ValueInfoProto> {
        self.graph.proto.input.iter().filter(|input| is_wanted(&input.name)).cloned().collect()
    }

    /// Outputs of the whole model.
    fn outputs(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<ValueInfoProto> {
        self.graph.proto.output.iter().filter(|output| is_wanted(&output.name)).cloned().collect()
    }

    /// A tensor inside the model as an input or output of a half.
    fn declared(&self, name: &str) -> Result<ValueInfoProto> {
        let dtype: &Dtype = self.analysis.dtype(name)?;
        let dims = self.open.shape(name)?;
        let tensor = type_proto::Tensor { elem_type: dtype.onnx as i32, shape: Some(declaration(&dims)) };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        Ok(ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() })
    }

    /// Nodes and constants, and what is noted about their tensors.
    fn half(
        &self,
        input: Vec<ValueInfoProto>,
        output: Vec<ValueInfoProto>,
        runs: &[bool],
        reads: &HashSet<&'a str>,
    ) -> GraphProto {
        let whole = self.graph.proto;
        let has_tensor = |name: &str| match self.graph.sources.get(name) {
            Some(&Source::Node(position)) => runs[position],
            Some(Source::Initialiser(_)) => reads.contains(name),
            Some(Source::Input(_)) | None => false,
        };
        let is_declared = |name: &str| input.iter().chain(&output).any(|info| info.name == name);
        let notes = whole.value_info.iter().filter(|info| has_tensor(&info.name) && !is_declared(&info.name));
        let constants = whole.initializer.iter().filter(|constant| reads.contains(constant.name.as_str()));
        let annotations = whole.quantization_annotation.iter();
        let nodes = whole.node.iter().zip(runs).filter(|(_, runs)| **runs);
        GraphProto {
            node: nodes.map(|(node, _)| node.clone()).collect(),
            name: whole.name.clone(),
            doc_string: whole.doc_string.clone(),
            initializer: constants.cloned().collect(),
            value_info: notes.cloned().collect(),
            quantization_annotation: annotations
                .filter(|note| has_tensor(note.tensor_name()))
                .cloned()
                .collect(),
            input,
            output,
            ..GraphProto::default()
        }
    }
}

fn is_state(states: &[State], output: &str) -> bool {
    states.iter().any(|state| state.output == output)
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

/// Why a name is not that of an inner cut.
fn why_not(graph: &Graph<'_>, seams: &Seams<'_, '_>, cuts: &[Cut], at: &str) -> Error {
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
    let (payload, _) = graph.sources.get_key_value(at).unwrap_or((&at, &source));
    Error::NotACut { name, live: seams.beside(payload).into_iter().map(str::to_owned).collect(), nearest }
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
