//! HTTP beside the framed protocol: health, KServe v2, metrics, the figures of the live page.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use common::*;
use narrows_link::{
    Code, Failure, Limits, Running, Server, ServerOptions, Token,
    http::{PlainTensor, TensorSpec, Tensors},
};
use serde_json::{Value, json};

/// Frames are the values' bytes, whatever the shape: enough for an echo.
struct Bare;

impl Tensors for Bare {
    fn specs(&self, route: &str) -> Option<(TensorSpec, TensorSpec)> {
        let spec = |name: &str| TensorSpec { name: name.into(), shape: vec![-1] };
        (route == "echo").then(|| (spec("features"), spec("logits")))
    }

    fn encode(&self, _: &str, tensor: &PlainTensor) -> Result<Vec<u8>, Failure> {
        Ok(tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn decode(&self, _: &str, reply: &[u8]) -> Result<PlainTensor, Failure> {
        let values: Vec<f32> = reply.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(PlainTensor { shape: vec![values.len()], values })
    }
}

fn http_server(options: impl Into<ServerOptions>) -> (Running, SocketAddr) {
    let options = ServerOptions { http: Some(([127, 0, 0, 1], 0).into()), ..options.into() };
    let server = Server::bind("127.0.0.1:0", options).expect("a server").with_tensors(Arc::new(Bare));
    let running = server.spawn(Echo).expect("a server");
    let address = running.http_addr().expect("HTTP was asked for");
    (running, address)
}

/// One request, and the whole answer: status, head, body.
fn ask(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("a server that listens");
    // A server that refuses early may not take the body.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head, answer[end + 4..].to_vec())
}

fn get(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let (status, _, body) = ask(address, &format!("GET {path} HTTP/1.1"), b"");
    (status, body)
}

fn get_json(address: SocketAddr, path: &str) -> Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

fn infer(address: SocketAddr, route: &str, form: &Value, binary: &[u8]) -> (u16, String, Vec<u8>) {
    let mut body = serde_json::to_vec(form).expect("JSON");
    let length = body.len();
    body.extend_from_slice(binary);
    let length = if binary.is_empty() {
        String::new()
    } else {
        format!("\r\nInference-Header-Content-Length: {length}")
    };
    ask(address, &format!("POST /v2/models/{route}/infer HTTP/1.1{length}"), &body)
}

fn refused(answer: &(u16, String, Vec<u8>)) -> String {
    let value: Value = serde_json::from_slice(&answer.2).expect("JSON");
    value["error"].as_str().expect("an error").to_owned()
}

fn bytes_element(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn frame_input(size: usize) -> Value {
    json!({ "name": "frame", "datatype": "BYTES", "shape": [1], "parameters": { "binary_data_size": size } })
}

#[test]
fn health_and_metadata_are_told() {
    let (_server, http) = http_server(limits());
    assert_eq!(get(http, "/v2/health/live").0, 200);
    assert_eq!(get(http, "/v2/health/ready").0, 200);
    assert_eq!(get(http, "/v2/models/echo/ready").0, 200);
    assert_eq!(get(http, "/v2/models/echo/versions/1/ready").0, 200);
    assert_eq!(get(http, "/v2/models/elsewhere/ready").0, 404);
    assert_eq!(get(http, "/nothing").0, 404);
    assert_eq!(get_json(http, "/v2")["extensions"], json!(["binary_tensor_data"]));
    let model = get_json(http, "/v2/models/echo");
    assert_eq!(model["inputs"][0]["datatype"], "BYTES");
    assert_eq!(model["inputs"][1], json!({ "name": "features", "datatype": "FP32", "shape": [-1] }));
    assert_eq!(get_json(http, "/v2/models/fail")["inputs"].as_array().expect("a list").len(), 1);
}

#[test]
fn a_frame_goes_in_and_out_as_bytes() {
    let (_server, http) = http_server(limits());
    let frame: Vec<u8> = (0..56_000u32).map(|i| (i * 7) as u8).collect();
    let element = bytes_element(&frame);
    let form = json!({
        "id": "seven",
        "inputs": [frame_input(element.len())],
        "outputs": [{ "name": "frame", "parameters": { "binary_data": true } }],
    });
    let (status, head, body) = infer(http, "echo", &form, &element);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let length = head.split("inference-header-content-length: ").nth(1).expect("the JSON's length");
    let length: usize = length.lines().next().and_then(|line| line.trim().parse().ok()).expect("a length");
    let form: Value = serde_json::from_slice(&body[..length]).expect("JSON");
    assert_eq!((&form["id"], &form["model_name"]), (&json!("seven"), &json!("echo")));
    assert_eq!(form["outputs"][0]["parameters"]["binary_data_size"], element.len());
    assert!(body[length..] == element);
}

#[test]
fn plain_tensors_go_in_and_out_as_json_and_as_binary() {
    let (_server, http) = http_server(limits());
    let plain = |data: Value| json!({ "inputs": [{ "name": "features", "datatype": "FP32", "shape": [2, 2], "data": data }] });
    for data in [json!([1.5, -2, 0, 4]), json!([[1.5, -2], [0, 4]])] {
        let (status, _, body) = infer(http, "echo", &plain(data), b"");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let form: Value = serde_json::from_slice(&body).expect("JSON");
        let expected =
            json!({ "name": "logits", "datatype": "FP32", "shape": [4], "data": [1.5, -2.0, 0.0, 4.0] });
        assert_eq!(form["outputs"][0], expected);
    }
    let binary: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let form = json!({
        "parameters": { "binary_data_output": true },
        "inputs": [{ "name": "features", "datatype": "FP32", "shape": [2], "parameters": { "binary_data_size": 8 } }],
    });
    let (status, _, body) = infer(http, "echo", &form, &binary);
    assert_eq!(status, 200);
    assert!(body.ends_with(&binary));
}

#[test]
fn what_is_no_inference_request_is_refused_with_the_reason() {
    let (_server, http) = http_server(limits());
    let plain = |shape: Value, data: Value| json!({ "inputs": [{ "name": "features", "datatype": "FP32", "shape": shape, "data": data }] });
    let element = bytes_element(b"abc");
    let frame = |outputs: Value| json!({ "inputs": [frame_input(element.len())], "outputs": outputs });
    let cases = [
        (json!({ "inputs": [] }), b"".as_slice(), "one input"),
        (json!([1]), b"", "JSON"),
        (plain(json!([3]), json!([1, 2])), b"", "2 elements"),
        (plain(json!([2]), json!([1, "x"])), b"", "number"),
        (plain(json!([u64::MAX, 2]), json!([1])), b"", "1 elements"),
        (plain(json!([1]), json!([1e39])), b"", "beyond FP32"),
        (
            json!({ "inputs": [{ "name": "other", "datatype": "FP32", "shape": [1], "data": [1] }] }),
            b"",
            "no input",
        ),
        (
            json!({ "inputs": [{ "name": "features", "datatype": "INT8", "shape": [1], "data": [1] }] }),
            b"",
            "FP32",
        ),
        (frame(json!([{ "name": "frame" }])), &element, "binary"),
        (frame(json!([{ "name": "nothing" }])), &element, "output"),
        (json!({ "inputs": [frame_input(6)] }), &element, "7 bytes"),
        (
            json!({ "inputs": [frame_input(7)], "parameters": { "binary_data_output": true } }),
            b"\xff\0\0\0abc",
            "length 255",
        ),
    ];
    for (form, binary, part) in cases {
        let answer = infer(http, "echo", &form, binary);
        let text = refused(&answer);
        assert!(answer.0 == 400 && text.contains(part), "{form}: {} {text}", answer.0);
    }
    let good = json!({ "inputs": [frame_input(7)], "parameters": { "binary_data_output": true } });
    for (route, status) in [("elsewhere", 404), ("fail", 400), ("panic", 500)] {
        assert_eq!(infer(http, route, &good, &element).0, status, "{route}");
    }
    let late =
        json!({ "inputs": [frame_input(7)], "parameters": { "binary_data_output": true, "timeout": 1 } });
    assert_eq!(infer(http, "echo", &late, &element).0, 504);
    let head = "POST /v2/models/echo/infer HTTP/1.1\r\nInference-Header-Content-Length: 99";
    assert_eq!(ask(http, head, b"{}").0, 400);
    assert_eq!(ask(http, "POST /v2/models/echo/infer HTTP/1.1", &vec![b' '; 1 << 20]).0, 413);
    assert_eq!(infer(http, "echo", &good, &element).0, 200, "the server lives on");
}

#[test]
fn a_full_server_says_when_to_come_again() {
    let limits = Limits { max_in_flight: 1, patience: millis(10), ..limits() };
    let (server, http) = http_server(limits);
    let mut peer = Peer::welcomed(&server);
    peer.say(&request(1, "slow", b"x"));
    peer.say(&narrows_link::message::Message::Ping(1));
    assert!(matches!(peer.hear(), Ok(narrows_link::message::Message::Pong(1))), "the first is in");
    let form = json!({ "inputs": [frame_input(7)], "parameters": { "binary_data_output": true } });
    let answer = infer(http, "echo", &form, &bytes_element(b"abc"));
    assert_eq!(answer.0, 503, "{}", refused(&answer));
    assert!(answer.1.contains("retry-after: 1"), "{}", answer.1);
}

#[test]
fn metrics_and_figures_count_what_happened() {
    let (server, http) = http_server(limits());
    let mut client = client_of(&server);
    for _ in 0..5 {
        client.request("echo", &[1; 1000]).expect("an echo");
    }
    assert_eq!(code_of(client.request("fail", b"x")), Code::BadPayload);
    let (status, body) = get(http, "/metrics");
    let text = String::from_utf8(body).expect("text");
    assert_eq!(status, 200);
    for line in [
        "narrows_open_connections 1",
        "narrows_connections_total{outcome=\"accepted\"} 1",
        "narrows_requests_total{route=\"echo\",outcome=\"ok\"} 5",
        "narrows_requests_total{route=\"fail\",outcome=\"bad payload\"} 1",
        "narrows_tensor_bytes_total 5000",
        "narrows_stage_seconds_count{stage=\"queue\"} 6",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    let mut figures = Value::Null;
    eventually("a second passes", || {
        figures = get_json(http, "/live");
        figures["samples"].as_array().is_some_and(|samples| samples.iter().any(|s| s["bits"] == 4.0))
    });
    assert_eq!((&figures["totals"]["requests"], &figures["totals"]["errors"]), (&json!(6), &json!(1)));
    assert_eq!(figures["stages"], json!(["receive", "queue", "decode", "tail", "send"]));
    assert_eq!(figures["routes"], json!(ROUTES));
    assert!(String::from_utf8(get(http, "/").1).expect("text").contains("<title>narrows"));
}

#[test]
fn a_token_opens_everything_but_health_and_the_empty_page() {
    let (_server, http) = http_server(ServerOptions { tokens: vec![Token::new("alpha")], ..limits().into() });
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/echo/ready", "/"] {
        assert_eq!(get(http, path).0, 200, "{path}");
    }
    for path in ["/live", "/metrics", "/v2", "/v2/models/echo"] {
        assert_eq!(get(http, path).0, 401, "{path}");
        let shown =
            |token: &str| ask(http, &format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}"), b"").0;
        assert_eq!((shown("alpha"), shown("beta")), (200, 401), "{path}");
    }
    let form = json!({ "inputs": [frame_input(7)] });
    assert_eq!(infer(http, "echo", &form, &bytes_element(b"abc")).0, 401);
}

#[test]
fn a_drain_ends_http_too() {
    let (server, http) = http_server(limits());
    let form = json!({ "inputs": [frame_input(7)], "parameters": { "binary_data_output": true } });
    let working = thread::spawn(move || infer(http, "slow", &form, &bytes_element(b"abc")).0);
    thread::sleep(SLOW / 3);
    server.stop().expect("a server without errors");
    assert_eq!(working.join().expect("no panic"), 200);
    assert!(TcpStream::connect(http).is_err());
}

#[test]
fn a_header_that_does_not_end_is_waited_for_as_long_as_a_message_and_no_longer() {
    let (_server, http) = http_server(Limits { message_timeout: millis(200), ..limits() });
    for begun in ["", "GET /v2 HTT", "GET /v2 HTTP/1.1\r\nHost: x\r\nSlow: "] {
        let mut stream = TcpStream::connect(http).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        stream.write_all(begun.as_bytes()).expect("a server that listens");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the end, not silence");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{begun:?}");
    }
    assert_eq!(get(http, "/v2").0, 200, "others are served");
}

#[test]
fn numbers_in_json_are_counted_as_the_memory_that_reading_them_takes() {
    let (_server, http) = http_server(Limits { max_memory_bytes: 100_000, patience: millis(10), ..limits() });
    let plain = |count: usize| {
        let data = vec![0; count];
        json!({ "inputs": [{ "name": "features", "datatype": "FP32", "shape": [count], "data": data }] })
    };
    assert_eq!(infer(http, "echo", &plain(5000), b"").0, 200);
    // The body alone, 40 kB, would fit; what becomes of it would not.
    let answer = infer(http, "echo", &plain(20_000), b"");
    assert!(answer.0 == 503 && refused(&answer).contains("memory"), "{}", answer.0);
    eventually("what was held is given back", || infer(http, "echo", &plain(5000), b"").0 == 200);
}
