//! Requests of several clients, run as one batch.

use std::time::Duration;

use narrows_link::{Failure as Refusal, Request, Step, Work};
use narrows_split::{Data, Value};

use super::Served;
use super::worker::Worker;
use crate::evaluate::timed;

/// Most requests of a batch.
pub const MAX_BATCH: usize = 32;

/// A request that can go with others.
struct Member {
    index: usize,
    is_step: bool,
    payload: Value,
    decode: Duration,
}

/// Answers of requests for one tail: those whose payloads have one shape from one run, the others one by one.
pub fn together(
    tail: &Served,
    worker: &mut Worker,
    requests: &[Request<'_>],
    replies: &mut [Vec<u8>],
) -> Vec<Option<Result<Work, Refusal>>> {
    let mut results: Vec<_> = requests.iter().map(|_| None).collect();
    let mut members: Vec<Member> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let Some((frame, is_step)) = plain_frame(tail, request.payload) else { continue };
        // What is wrong with a request is said when it is answered by itself.
        let Ok((payload, decode)) = worker.payload(tail, frame) else { continue };
        let is_alike = members.first().is_none_or(|first| first.payload.shape() == payload.shape());
        if is_alike && payload.shape().first() == Some(&1) && payload.f32().is_some() {
            members.push(Member { index, is_step, payload, decode });
        }
    }
    if members.len() < 2 {
        return results;
    }
    let Some((outputs, run)) = run(tail, &members) else { return results };
    for (place, member) in members.iter().enumerate() {
        let own: Vec<Value> = outputs.iter().filter_map(|output| row(output, place)).collect();
        let reply = &mut replies[member.index];
        let written =
            if member.is_step { worker.write_outputs(&own, reply) } else { worker.write_first(&own, reply) };
        let tensor_bytes = member.payload.bytes() as u64;
        let work = Work { decode: member.decode, tail: run, tensor_bytes, bits: None };
        results[member.index] = Some(written.map(|()| work));
    }
    results
}

/// The frame of a request that is a frame, or a step with nothing beside one.
fn plain_frame<'r>(tail: &Served, payload: &'r [u8]) -> Option<(&'r [u8], bool)> {
    if !Step::is_meant(payload) {
        return Some((payload, false));
    }
    let step = Step::from_bytes(payload).ok()?;
    let is_plain = step.place.is_none() && step.side.is_empty() && step.split.goes_with(tail.split);
    is_plain.then_some((step.frame, true))
}

/// The outputs of all members, one after the other, and the time of the run; nothing if the tail does not keep
/// them apart.
fn run(tail: &Served, members: &[Member]) -> Option<(Vec<Value>, Duration)> {
    let mut shape = members[0].payload.shape().to_vec();
    shape[0] = members.len();
    let values: Vec<f32> =
        members.iter().filter_map(|member| member.payload.f32()).flatten().copied().collect();
    let payload = Value::new(shape, values).ok()?;
    let mut session = tail.session.clone();
    let (outputs, run) = timed(|| session.step(&[(tail.payload.name.as_str(), &payload)]));
    let outputs: Vec<Value> = outputs.ok()?.into_iter().map(|(_, value)| value).collect();
    outputs.iter().all(|output| output.shape().first() == Some(&members.len())).then_some((outputs, run))
}

/// A member's part of an output.
fn row(output: &Value, place: usize) -> Option<Value> {
    let mut shape = output.shape().to_vec();
    let count = std::mem::replace(shape.first_mut()?, 1);
    let range = |length: usize| place * (length / count)..(place + 1) * (length / count);
    let data: Data = match output.data() {
        Data::F32(values) => values[range(values.len())].to_vec().into(),
        Data::I64(values) => values[range(values.len())].to_vec().into(),
        Data::Bool(values) => values[range(values.len())].to_vec().into(),
    };
    Value::new(shape, data).ok()
}

#[cfg(test)]
mod tests {
    use narrows::{Decoder, EncodeOptions, Encoder, Profiles, TensorView};
    use narrows_link::{StreamLimits, Tail as _};
    use narrows_split::{Model, Runtime};

    use super::*;
    use crate::tails::Tails;

    fn tails() -> Tails {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../narrows-split/tests/models/tiny-residual.onnx");
        let split = narrows_split::split(&Model::read(path).unwrap(), "/2/Relu_1_output_0").unwrap();
        let served = Served::new(&split.tail, "tail", Runtime::Tract).unwrap();
        Tails::new(vec![served], Profiles::default(), StreamLimits::default()).unwrap()
    }

    fn frame(tails: &Tails, seed: usize) -> Vec<u8> {
        let shape: Vec<usize> = (tails.served[0].payload.dims.iter().skip(1))
            .map(|dim| if let narrows_split::Dim::Fixed(size) = dim { *size } else { 1 })
            .collect();
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|at| ((at * 7 + seed * 13) % 11) as f32 / 5.0).collect();
        let view = TensorView::new(&values, &shape).unwrap();
        Encoder::new(EncodeOptions::lossless()).unwrap().encode(&view).unwrap()
    }

    #[test]
    fn a_batch_gives_each_its_own_answer() {
        let tails = tails().in_batches();
        assert_eq!(tails.max_batch(), MAX_BATCH);
        let route = tails.routes().remove(0);
        let mut payloads: Vec<Vec<u8>> = (0..5).map(|seed| frame(&tails, seed)).collect();
        payloads[3] = Step::new(tails.served[0].split, &payloads[3]).to_bytes().unwrap();
        payloads[1] = b"no frame".to_vec();
        let request = |(id, payload): (usize, &'_ Vec<u8>)| -> Vec<u8> {
            let mut reply = Vec::new();
            let request = Request { id: id as u64 + 1, deadline_ms: 0, route: &route, payload };
            let _ = tails.answer(&request, &mut reply);
            reply
        };
        let alone: Vec<Vec<u8>> = payloads.iter().enumerate().map(request).collect();
        let requests: Vec<_> = (1..)
            .zip(&payloads)
            .map(|(id, payload)| Request { id, deadline_ms: 0, route: &route, payload })
            .collect();
        let mut replies = vec![Vec::new(); requests.len()];
        let results = tails.answer_batch(&requests, &mut replies);
        for (index, (result, reply)) in results.iter().zip(&replies).enumerate() {
            assert_eq!(result.is_err(), index == 1, "{result:?}");
            let values = |reply: &[u8]| match narrows_link::Outputs::from_bytes(reply) {
                Ok(outputs) => match outputs.0[0] {
                    narrows_link::Output::Frame(frame) => Decoder::new().decode(frame).unwrap().to_f32(),
                    narrows_link::Output::Packed(_) => panic!("not a frame"),
                },
                Err(_) => Decoder::new().decode(reply).unwrap().to_f32(),
            };
            if index != 1 {
                let (found, expected) = (values(reply), values(&alone[index]));
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)));
                assert_eq!(reply.starts_with(b"NRSO"), index == 3);
            }
        }
        assert!(replies[0] != replies[2], "they are not all alike");
    }
}
