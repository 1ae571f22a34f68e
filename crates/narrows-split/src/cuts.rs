use crate::analysis::{Analysis, product};
use crate::constant::constant_bytes;
use crate::graph::{Graph, Source, Span};
use crate::{Model, Result};

/// Bytes of an element sent as it is.
const FLOAT32_BYTES: u64 = 4;

/// Where on the way through the model a cut lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The model's input: everything runs on the far side.
    Input,
    /// Between input and output: the only place where [`split`](crate::split()) applies.
    Inner,
    /// The model's output: everything runs on the near side.
    Output,
}

/// A tensor through which all data on the way from the model's inputs to its outputs pass.
///
/// Multiply-adds are those of convolutions and matrix products (`Conv`, `ConvTranspose`, `Gemm`, `MatMul` and their integer
/// forms). Shapes and multiply-adds are for a batch of one where the model leaves the batch open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Position in the list of cuts, counted from the model's input.
    pub index: usize,
    /// Where it lies.
    pub place: Place,
    /// Name of the tensor.
    pub name: String,
    /// Operator that computes it, such as `Relu`; `None` for an input.
    pub op: Option<String>,
    /// Shape of the tensor, the batch included.
    pub shape: Vec<usize>,
    /// Element type, such as `float32`.
    pub dtype: &'static str,
    /// Size in bytes if sent uncompressed as float32.
    pub bytes: u64,
    /// Multiply-adds up to and including the operator that computes it.
    pub macs_before: u64,
    /// Multiply-adds from there to the output.
    pub macs_after: u64,
    /// Bytes of constants that the head holds. A constant used on both sides counts on both.
    pub weight_bytes_before: u64,
    /// Bytes of constants that the tail holds.
    pub weight_bytes_after: u64,
}

/// All single-tensor cuts of a model, from its input to its output.
///
/// One sweep over the nodes in topological order keeps the set of live tensors: those that depend on the model's
/// input, are already computed and are still needed. Wherever exactly one is live, all that the rest of the model
/// will ever know of the input is in that tensor, and it is a cut.
///
/// # Errors
/// [`Error::Engine`](crate::Error::Engine), [`Error::UnknownShape`](crate::Error::UnknownShape),
/// [`Error::Unsupported`](crate::Error::Unsupported) or [`Error::LimitExceeded`](crate::Error::LimitExceeded) if the
/// model's shapes can't be worked out.
pub fn cuts(model: &Model) -> Result<Vec<Cut>> {
    let graph = model.graph()?;
    let analysis = Analysis::new(model.proto(), &graph)?;
    let costs = Costs::new(&graph, &analysis)?;
    let last_node = graph.flow().last().map(|(position, _)| position);
    let mut cuts = Vec::new();
    for step in sweep(&graph) {
        let &[name] = step.live.as_slice() else { continue };
        let shape = analysis.shape(name)?;
        let (before, after) = costs.macs.split_at(step.after.map_or(0, |position| position + 1));
        cuts.push(Cut {
            index: cuts.len(),
            place: match step.after {
                None => Place::Input,
                after if after == last_node => Place::Output,
                Some(_) => Place::Inner,
            },
            name: name.into(),
            op: step.after.map(|position| graph.proto.node[position].op_type.clone()),
            dtype: analysis.dtype(name)?.name,
            bytes: product(&shape).saturating_mul(FLOAT32_BYTES),
            shape,
            macs_before: total(before),
            macs_after: total(after),
            weight_bytes_before: costs.weights(|span| step.after.is_some_and(|after| span.first <= after)),
            weight_bytes_after: costs.weights(|span| step.after.is_none_or(|after| span.last > after)),
        });
    }
    Ok(cuts)
}

/// The live tensors after a node, or before the first one, oldest first.
pub(crate) struct Step<'a> {
    pub(crate) after: Option<usize>,
    pub(crate) live: Vec<&'a str>,
}

/// The live tensors at every step through the model.
pub(crate) fn sweep<'a>(graph: &Graph<'a>) -> impl Iterator<Item = Step<'a>> {
    let inputs = graph.inputs().filter(|name| graph.span(name).is_some()).collect();
    let mut live: Vec<&'a str> = inputs;
    let start = Step { after: None, live: live.clone() };
    let steps = graph.flow().map(move |(position, node)| {
        live.extend(node.output.iter().map(String::as_str));
        live.retain(|name| graph.span(name).is_some_and(|span| span.last > position));
        Step { after: Some(position), live: live.clone() }
    });
    std::iter::once(start).chain(steps)
}

/// What each node computes and where each constant is needed.
struct Costs {
    macs: Vec<u64>,
    weights: Vec<(Span, u64)>,
}

impl Costs {
    fn new(graph: &Graph<'_>, analysis: &Analysis) -> Result<Self> {
        let mut macs = vec![0; graph.proto.node.len()];
        for (position, node) in graph.flow() {
            macs[position] = analysis.macs(node)?;
        }
        let mut weights = Vec::new();
        for initialiser in &graph.proto.initializer {
            if let Some(span) = graph.span(&initialiser.name) {
                weights.push((span, constant_bytes(initialiser, &initialiser.name)?));
            }
        }
        for (position, node) in graph.proto.node.iter().enumerate() {
            let Some(span) = graph.node_span(position) else { continue };
            for tensor in node.attribute.iter().filter_map(|attribute| attribute.t.as_ref()) {
                weights.push((span, constant_bytes(tensor, &node.name)?));
            }
        }
        Ok(Self { macs, weights })
    }

    fn weights(&self, is_needed: impl Fn(Span) -> bool) -> u64 {
        total(self.weights.iter().filter(|(span, _)| is_needed(*span)).map(|(_, bytes)| bytes))
    }
}

fn total<'a>(numbers: impl IntoIterator<Item = &'a u64>) -> u64 {
    numbers.into_iter().fold(0, |sum, &number| sum.saturating_add(number))
}

/// Position of the node that computes a tensor.
pub(crate) fn producer(graph: &Graph<'_>, name: &str) -> Option<usize> {
    match graph.sources.get(name) {
        Some(&Source::Node(position)) => Some(position),
        _ => None,
    }
}
