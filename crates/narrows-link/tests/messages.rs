//! What the bytes of a message promise: round trips, and typed errors for hostile bytes.

use std::io::{self, IoSlice, Write};

use narrows_link::{
    Code, Error, Failure, MAX_FAILURE_TEXT_BYTES,
    message::{
        HEADER_BYTES, Hello, MAX_ROUTES, Message, ProfileName, Reader, Request, Response, Timings, VERSION,
        Welcome, Writer,
    },
};
use proptest::prelude::*;

const LIMIT: u32 = 1 << 16;

/// One of every kind, with every field filled.
fn samples() -> Vec<Message<'static>> {
    vec![
        Message::Hello(Hello {
            version: VERSION,
            capabilities: 0x8000_0000_0000_0001,
            max_message_bytes: 1 << 20,
            software: "tester 1.0",
            token: "s3cret",
        }),
        Message::Welcome(Welcome {
            version: VERSION,
            capabilities: 3,
            max_message_bytes: 1 << 21,
            idle_timeout_ms: 300_000,
            max_in_flight: 32,
            software: "server 1.0",
            routes: vec!["resnet50/layer2", "vgg16/pool3", "größe", ""],
        }),
        Message::Request(Request {
            id: 7,
            deadline_ms: 1500,
            route: "resnet50/layer2",
            payload: &[0, 1, 2, 255],
        }),
        Message::Request(Request { id: u64::MAX, deadline_ms: u32::MAX, route: "", payload: &[] }),
        Message::Response(Response {
            id: 7,
            timings: Timings { queue_ns: 5000, decode_ns: 19_000, tail_ns: u64::MAX },
            payload: b"logits",
        }),
        Message::Failure { id: 7, failure: Failure::new(Code::BadPayload, "checksum over the payload") },
        Message::Failure { id: 0, failure: Failure::new(Code::Other(0x8001), "") },
        Message::Ping(0x0123_4567_89ab_cdef),
        Message::Pong(1),
        Message::Goodbye,
        Message::ProfileQuery { id: 8, names: vec![ProfileName::of(b"one"), ProfileName::of(b"two")] },
        Message::ProfileList { id: 8, names: vec![] },
        Message::ProfileOffer { id: 9, name: ProfileName::of(b"one"), contents: b"one" },
    ]
}

/// The header of a body, with right checksums.
fn header(kind: u8, announced: u32, body: &[u8]) -> Vec<u8> {
    let crc = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    let mut header = vec![kind, 0, 0, 0];
    header.extend_from_slice(&announced.to_le_bytes());
    header.extend_from_slice(&crc(body).to_le_bytes());
    header.extend_from_slice(&crc(&header).to_le_bytes());
    header
}

/// A body behind a header with right checksums.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, body.len() as u32, body);
    bytes.extend_from_slice(body);
    bytes
}

fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write_into(&mut bytes, LIMIT).expect("a message within the limits");
    bytes
}

#[test]
fn every_message_comes_back_as_it_went() {
    for message in samples() {
        let bytes = bytes_of(&message);
        let (back, taken) = Message::read_from(&bytes, LIMIT).expect("a valid message");
        assert_eq!((back, taken), (message, bytes.len()));
    }
}

#[test]
fn a_request_has_the_documented_bytes() {
    let request = Request { id: 0x0102, deadline_ms: 1000, route: "m", payload: &[9, 8] };
    let bytes = bytes_of(&Message::Request(request));
    let body = [2, 1, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 1, 0, b'm', 9, 8];
    assert_eq!(bytes, message(3, &body));
    // As in docs/protocol.md.
    assert_eq!(bytes[..HEADER_BYTES], [3, 0, 0, 0, 17, 0, 0, 0, 79, 103, 51, 112, 230, 200, 186, 166]);
}

#[test]
fn a_hello_has_the_documented_bytes() {
    let hello =
        Hello { version: 1, capabilities: 0, max_message_bytes: 0x0400_0000, software: "ab", token: "" };
    let body = b"NRWL\x01\0\0\0\0\0\0\0\0\0\0\0\0\x04\x02\0ab\0\0";
    let bytes = bytes_of(&Message::Hello(hello));
    assert_eq!(bytes, message(1, body));
    assert_eq!(bytes[..HEADER_BYTES], [1, 0, 0, 0, 24, 0, 0, 0, 99, 252, 233, 227, 83, 154, 95, 188]);
}

#[test]
fn every_truncation_is_a_typed_error() {
    for message in samples() {
        let bytes = bytes_of(&message);
        for length in 0..bytes.len() {
            let error = Message::read_from(&bytes[..length], LIMIT).expect_err("a part is not a message");
            assert!(matches!(error, Error::Truncated { .. }), "{length} bytes of {message:?}: {error:?}");
            let error = Reader::new().read(&mut &bytes[..length], LIMIT).expect_err("the same from a stream");
            match length {
                0 => assert!(matches!(error, Error::Closed), "{error:?}"),
                _ => assert!(matches!(error, Error::Truncated { .. }), "{error:?}"),
            }
        }
    }
}

#[test]
fn every_bit_flip_is_noticed() {
    for message in samples() {
        let bytes = bytes_of(&message);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = Message::read_from(&flipped, u32::MAX).expect_err("a changed message");
            let noticed = match bit / 8 {
                // A kind that does not exist, and zeros that are none, say more than a checksum.
                0..4 => matches!(
                    error,
                    Error::Checksum { what: "message header", .. }
                        | Error::UnknownKind { .. }
                        | Error::Reserved { .. }
                ),
                4..HEADER_BYTES => matches!(error, Error::Checksum { what: "message header", .. }),
                _ => matches!(error, Error::Checksum { what: "message body", .. }),
            };
            assert!(noticed, "bit {bit} of {message:?}: {error:?}");
        }
    }
}

/// There is one way to write a message: what was read writes back to the same bytes.
fn assert_writes_back(bytes: &[u8]) {
    let Ok((message, taken)) = Message::read_from(bytes, LIMIT) else { return };
    if !matches!(&message, Message::Hello(hello) if hello.version > VERSION) {
        assert_eq!(bytes_of(&message), &bytes[..taken]);
    }
}

proptest! {
    #[test]
    fn random_bytes_are_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        assert_writes_back(&bytes);
    }

    #[test]
    fn random_bodies_are_an_error_or_a_message(
        kind in 0u8..13,
        magic in any::<bool>(),
        mut body in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        if magic && body.len() >= 6 {
            body[..6].copy_from_slice(b"NRWL\x01\0");
        }
        assert_writes_back(&message(kind, &body));
    }

    #[test]
    fn any_request_comes_back_through_a_stream_in_any_pieces(
        id in any::<u64>(),
        route in ".{0,60}",
        payload in prop::collection::vec(any::<u8>(), 0..5000),
        piece in 1usize..700,
    ) {
        let request = Message::Request(Request { id, deadline_ms: 9, route: &route, payload: &payload });
        let mut pieces = Pieces { bytes: Vec::new(), piece };
        Writer::new().write(&mut pieces, &request, LIMIT).expect("within the limits");
        Writer::new().write(&mut pieces, &Message::Ping(id), LIMIT).expect("within the limits");
        let mut reader = Reader::new();
        let mut stream = InPieces { bytes: &pieces.bytes, piece };
        prop_assert_eq!(reader.read(&mut stream, LIMIT).expect("a message"), request);
        prop_assert_eq!(reader.read(&mut stream, LIMIT).expect("a message"), Message::Ping(id));
        prop_assert!(matches!(reader.read(&mut stream, LIMIT), Err(Error::Closed)));
    }
}

/// A stream that takes at most `piece` bytes a call.
struct Pieces {
    bytes: Vec<u8>,
    piece: usize,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.piece);
        self.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream that gives at most `piece` bytes a call.
struct InPieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl io::Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.piece);
        io::Read::read(&mut self.bytes, &mut buffer[..count])
    }
}

/// A stream that records how much it was asked to read at once.
struct Asked {
    bytes: io::Cursor<Vec<u8>>,
    most: usize,
}

impl io::Read for Asked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.most = self.most.max(buffer.len());
        self.bytes.read(buffer)
    }
}

#[test]
fn announced_bytes_take_no_memory_before_they_come() {
    for body_bytes in [0, 100, 16 << 10, 100_000] {
        let mut bytes = header(3, 0x7fff_fff0, b"");
        bytes.resize(HEADER_BYTES + body_bytes, 0);
        let there = bytes.len();
        let mut stream = Asked { bytes: io::Cursor::new(bytes), most: 0 };
        let error = Reader::new().read(&mut stream, u32::MAX).expect_err("the announced bytes do not come");
        assert!(matches!(error, Error::Truncated { needed: 0x8000_0000, .. }), "{error:?}");
        assert!(stream.most <= there.max(16 << 10), "{} bytes asked for after {there}", stream.most);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_from_the_header_alone() {
    let bytes =
        bytes_of(&Message::Request(Request { id: 1, deadline_ms: 0, route: "m", payload: &[0; 100] }));
    let error = Message::read_from(&bytes[..HEADER_BYTES], 64).expect_err("above the limit");
    assert!(matches!(error, Error::LimitExceeded { value: 115, limit: 48, .. }), "{error:?}");
}

#[test]
fn control_messages_have_bounds_of_their_own() {
    let bounds = [(1, 4096u32), (2, 1 << 16), (5, 1036), (6, 8), (7, 8), (8, 0)];
    for (kind, bound) in bounds.into_iter().chain([(9, 32_778), (10, 32_778), (11, (1 << 20) + 40)]) {
        let header = header(kind, bound + 1, b"");
        let error = Message::read_from(&header, u32::MAX).expect_err("above the bound");
        assert!(
            matches!(error, Error::LimitExceeded { limit, .. } if limit == u64::from(bound)),
            "{error:?}"
        );
    }
}

#[test]
fn a_message_above_a_limit_is_not_written() {
    let long = "x".repeat(300);
    let many = vec![""; MAX_ROUTES + 1];
    let welcome = |routes| Welcome {
        version: VERSION,
        capabilities: 0,
        max_message_bytes: 1,
        idle_timeout_ms: 1,
        max_in_flight: 1,
        software: "",
        routes,
    };
    let big = vec![0; LIMIT as usize];
    let messages = [
        Message::Request(Request { id: 1, deadline_ms: 0, route: &long, payload: &[] }),
        Message::Request(Request { id: 1, deadline_ms: 0, route: "", payload: &big }),
        Message::Welcome(welcome(many)),
        Message::Welcome(welcome(vec![&long[..255]; 300])),
    ];
    for message in messages {
        let mut out = vec![1, 2, 3];
        let error = message.write_into(&mut out, LIMIT).expect_err("above a limit");
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error:?}");
        assert_eq!(out, [1, 2, 3]);
    }
}

#[test]
fn a_hello_of_a_later_version_may_say_more() {
    let mut body = bytes_of(&samples()[0])[HEADER_BYTES..].to_vec();
    body[4] = 2;
    body.extend_from_slice(b"new");
    let bytes = message(1, &body);
    let (message, _) = Message::read_from(&bytes, LIMIT).expect("what is known is in its place");
    assert!(
        matches!(message, Message::Hello(Hello { version: 2, software: "tester 1.0", .. })),
        "{message:?}"
    );
}

#[test]
fn a_foreign_first_message_is_named() {
    let error = Message::read_from(b"GET / HTTP/1.1\r\n", LIMIT).expect_err("another protocol");
    assert!(matches!(error, Error::UnknownKind { kind: b'G' }), "{error:?}");
    let mut body = bytes_of(&samples()[0])[HEADER_BYTES..].to_vec();
    body[0] = b'X';
    let error = Message::read_from(&message(1, &body), LIMIT).map(|_| ()).expect_err("no magic");
    assert!(matches!(error, Error::BadMagic { found: [b'X', b'R', b'W', b'L'] }), "{error:?}");
}

#[test]
fn text_that_is_not_utf8_is_named() {
    let request = Message::Request(Request { id: 1, deadline_ms: 0, route: "mm", payload: &[] });
    let mut body = bytes_of(&request)[HEADER_BYTES..].to_vec();
    body[14] = 0xff;
    let error = Message::read_from(&message(3, &body), LIMIT).map(|_| ()).expect_err("not UTF-8");
    assert!(matches!(error, Error::Utf8 { what: "route" }), "{error:?}");
}

#[test]
fn the_longest_failure_text_fits() {
    let failure = Failure::new(Code::Internal, "y".repeat(2 * MAX_FAILURE_TEXT_BYTES));
    let message = Message::Failure { id: 1, failure };
    assert_eq!(Message::read_from(&bytes_of(&message), 0).expect("a valid message").0, message);
}

/// A stream that counts calls.
struct Calls(usize);

impl Write for Calls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += 1;
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0 += 1;
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_message_is_one_write() {
    let payload = vec![5; 60_000];
    let mut calls = Calls(0);
    let request = Message::Request(Request { id: 1, deadline_ms: 0, route: "m", payload: &payload });
    Writer::new().write(&mut calls, &request, LIMIT).expect("a stream that takes all");
    assert_eq!(calls.0, 1);
}
