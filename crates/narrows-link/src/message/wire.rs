//! Messages as bytes: one function writes the fields, its twin reads them in the same order.

use crc_fast::{CrcAlgorithm, Digest};

use super::{
    CHECKED_HEADER_BYTES, HEADER_BYTES, Hello, Kind, MAGIC, MAX_PROFILE_NAMES, MAX_ROUTE_BYTES, MAX_ROUTES,
    MAX_SOFTWARE_BYTES, MAX_TOKEN_BYTES, Message, ProfileName, Request, Response, Timings, VERSION, Welcome,
};
use crate::{Code, Error, Failure, failure::MAX_FAILURE_TEXT_BYTES};

/// A message header, checked against the limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    kind: Kind,
    body_bytes: usize,
    body_checksum: u32,
}

impl Header {
    /// Reads a header from the first [`HEADER_BYTES`] of `bytes`. `limit` bounds messages with a
    /// payload (header included); control messages have bounds of their own.
    ///
    /// The header has a checksum of its own: a damaged length would otherwise be believed, and
    /// waited for, before the body's checksum could tell.
    pub(crate) fn read_from(bytes: &[u8], limit: u32) -> Result<Header, Error> {
        let mut fields = Fields { bytes };
        let word = u32::from_le_bytes(fields.array("message header")?);
        let body_bytes = u64::from(fields.u32("message header")?);
        let body_checksum = fields.u32("message header")?;
        // What the first byte says comes first: it tells best that the peer is something else.
        let kind = Kind::from_byte(word as u8)?;
        if word >> 8 != 0 {
            return Err(Error::Reserved { what: "message header", value: u64::from(word >> 8) });
        }
        let stored = fields.u32("message header")?;
        check_sum("message header", stored, checksum(&[&bytes[..CHECKED_HEADER_BYTES]]))?;
        check_limit("message body", body_bytes, kind.max_body_bytes(limit))?;
        Ok(Header { kind, body_bytes: body_bytes as usize, body_checksum })
    }

    /// The message's kind.
    #[cfg(feature = "server")]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of the whole message.
    pub(crate) fn message_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// Reads the body that follows this header; `message` is the whole message.
    pub(crate) fn read_body<'a>(&self, message: &'a [u8]) -> Result<Message<'a>, Error> {
        let mut fields = Fields { bytes: message };
        fields.take("message header", HEADER_BYTES)?;
        check_sum("message body", self.body_checksum, checksum(&[fields.bytes]))?;
        Ok(match self.kind {
            Kind::Hello => Message::Hello(read_hello(&mut fields)?),
            Kind::Welcome => Message::Welcome(read_welcome(&mut fields)?),
            Kind::Request => Message::Request(Request {
                id: fields.u64("request id")?,
                deadline_ms: fields.u32("request deadline")?,
                route: fields.text("route", MAX_ROUTE_BYTES)?,
                payload: fields.bytes,
            }),
            Kind::Response => Message::Response(Response {
                id: fields.u64("response id")?,
                timings: Timings {
                    queue_ns: fields.u64("timings")?,
                    decode_ns: fields.u64("timings")?,
                    tail_ns: fields.u64("timings")?,
                },
                payload: fields.bytes,
            }),
            Kind::Failure => {
                let id = fields.u64("failure id")?;
                let code = Code::from(fields.u16("failure code")?);
                let text = fields.text("failure text", MAX_FAILURE_TEXT_BYTES)?;
                fields.end("failure")?;
                Message::Failure { id, failure: Failure::new(code, text) }
            }
            Kind::Ping => Message::Ping(read_nonce(&mut fields, "ping")?),
            Kind::Pong => Message::Pong(read_nonce(&mut fields, "pong")?),
            Kind::Goodbye => Message::Goodbye,
            Kind::ProfileQuery => {
                let (id, names) = read_names(&mut fields, "profile query")?;
                Message::ProfileQuery { id, names }
            }
            Kind::ProfileList => {
                let (id, names) = read_names(&mut fields, "profile list")?;
                Message::ProfileList { id, names }
            }
            Kind::ProfileOffer => Message::ProfileOffer {
                id: fields.u64("profile offer id")?,
                name: ProfileName(fields.array("profile name")?),
                contents: fields.bytes,
            },
        })
    }
}

impl<'a> Message<'a> {
    /// Reads the message at the start of `bytes`; also gives the number of bytes it takes.
    ///
    /// `limit` bounds a request or response, header included.
    ///
    /// # Errors
    /// Anything but one valid message of the protocol.
    pub fn read_from(bytes: &'a [u8], limit: u32) -> Result<(Message<'a>, usize), Error> {
        let header = Header::read_from(bytes, limit)?;
        let message = Fields { bytes }.take("message", header.message_bytes())?;
        Ok((header.read_body(message)?, message.len()))
    }

    /// Appends the whole message to `out`.
    ///
    /// # Errors
    /// A field above its bound, or a request or response above `limit`; `out` is as it was.
    pub fn write_into(&self, out: &mut Vec<u8>, limit: u32) -> Result<(), Error> {
        let payload = self.write_head_into(out, limit)?;
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Appends all but the payload, and gives the payload: a stream writes both with one call.
    pub(crate) fn write_head_into(&self, out: &mut Vec<u8>, limit: u32) -> Result<&'a [u8], Error> {
        let start = out.len();
        let written = self.write_checked_head(out, start, limit);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write_checked_head(&self, out: &mut Vec<u8>, start: usize, limit: u32) -> Result<&'a [u8], Error> {
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out[start] = self.kind() as u8;
        match self {
            Message::Hello(hello) => write_hello(out, hello)?,
            Message::Welcome(welcome) => write_welcome(out, welcome)?,
            Message::Request(request) => {
                out.extend_from_slice(&request.id.to_le_bytes());
                out.extend_from_slice(&request.deadline_ms.to_le_bytes());
                write_text(out, "route", request.route, MAX_ROUTE_BYTES)?;
            }
            Message::Response(response) => {
                out.extend_from_slice(&response.id.to_le_bytes());
                out.extend_from_slice(&response.timings.queue_ns.to_le_bytes());
                out.extend_from_slice(&response.timings.decode_ns.to_le_bytes());
                out.extend_from_slice(&response.timings.tail_ns.to_le_bytes());
            }
            Message::Failure { id, failure } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&u16::from(failure.code()).to_le_bytes());
                write_text(out, "failure text", failure.text(), MAX_FAILURE_TEXT_BYTES)?;
            }
            Message::Ping(nonce) | Message::Pong(nonce) => out.extend_from_slice(&nonce.to_le_bytes()),
            Message::Goodbye => {}
            Message::ProfileQuery { id, names } | Message::ProfileList { id, names } => {
                write_names(out, *id, names)?;
            }
            Message::ProfileOffer { id, name, .. } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&name.0);
            }
        }
        let payload = self.payload();
        let body_bytes = (out.len() - start - HEADER_BYTES + payload.len()) as u64;
        check_limit("message body", body_bytes, self.kind().max_body_bytes(limit))?;
        let body_checksum = checksum(&[&out[start + HEADER_BYTES..], payload]);
        out[start + 4..start + 8].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        out[start + 8..start + 12].copy_from_slice(&body_checksum.to_le_bytes());
        let header_checksum = checksum(&[&out[start..start + CHECKED_HEADER_BYTES]]);
        out[start + 12..start + HEADER_BYTES].copy_from_slice(&header_checksum.to_le_bytes());
        Ok(payload)
    }
}

fn write_hello(out: &mut Vec<u8>, hello: &Hello<'_>) -> Result<(), Error> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&hello.version.to_le_bytes());
    out.extend_from_slice(&hello.capabilities.to_le_bytes());
    out.extend_from_slice(&hello.max_message_bytes.to_le_bytes());
    write_text(out, "software", hello.software, MAX_SOFTWARE_BYTES)?;
    write_text(out, "token", hello.token, MAX_TOKEN_BYTES)
}

fn read_hello<'a>(fields: &mut Fields<'a>) -> Result<Hello<'a>, Error> {
    let hello = Hello {
        version: read_version(fields)?,
        capabilities: fields.u64("capabilities")?,
        max_message_bytes: fields.u32("message limit")?,
        software: fields.text("software", MAX_SOFTWARE_BYTES)?,
        token: fields.text("token", MAX_TOKEN_BYTES)?,
    };
    // A newer client may say more; what is known stays where it is.
    if hello.version <= VERSION {
        fields.end("hello")?;
    }
    Ok(hello)
}

fn write_welcome(out: &mut Vec<u8>, welcome: &Welcome<'_>) -> Result<(), Error> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&welcome.version.to_le_bytes());
    out.extend_from_slice(&welcome.capabilities.to_le_bytes());
    out.extend_from_slice(&welcome.max_message_bytes.to_le_bytes());
    out.extend_from_slice(&welcome.idle_timeout_ms.to_le_bytes());
    out.extend_from_slice(&welcome.max_in_flight.to_le_bytes());
    write_text(out, "software", welcome.software, MAX_SOFTWARE_BYTES)?;
    check_limit("number of routes", welcome.routes.len() as u64, MAX_ROUTES as u64)?;
    out.extend_from_slice(&(welcome.routes.len() as u16).to_le_bytes());
    welcome.routes.iter().try_for_each(|route| write_text(out, "route", route, MAX_ROUTE_BYTES))
}

fn read_welcome<'a>(fields: &mut Fields<'a>) -> Result<Welcome<'a>, Error> {
    let version = read_version(fields)?;
    if version > VERSION {
        return Err(Error::UnsupportedVersion { version, supported: VERSION });
    }
    let mut welcome = Welcome {
        version,
        capabilities: fields.u64("capabilities")?,
        max_message_bytes: fields.u32("message limit")?,
        idle_timeout_ms: fields.u32("idle timeout")?,
        max_in_flight: fields.u32("requests in flight")?,
        software: fields.text("software", MAX_SOFTWARE_BYTES)?,
        routes: Vec::new(),
    };
    let count = fields.u16("number of routes")?;
    check_limit("number of routes", u64::from(count), MAX_ROUTES as u64)?;
    for _ in 0..count {
        welcome.routes.push(fields.text("route", MAX_ROUTE_BYTES)?);
    }
    fields.end("welcome")?;
    Ok(welcome)
}

fn read_version(fields: &mut Fields<'_>) -> Result<u16, Error> {
    let found = fields.array("magic")?;
    if found != MAGIC {
        return Err(Error::BadMagic { found });
    }
    match fields.u16("version")? {
        0 => Err(Error::UnsupportedVersion { version: 0, supported: VERSION }),
        version => Ok(version),
    }
}

fn write_names(out: &mut Vec<u8>, id: u64, names: &[ProfileName]) -> Result<(), Error> {
    check_limit("number of profiles", names.len() as u64, MAX_PROFILE_NAMES as u64)?;
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&(names.len() as u16).to_le_bytes());
    names.iter().for_each(|name| out.extend_from_slice(&name.0));
    Ok(())
}

fn read_names(fields: &mut Fields<'_>, what: &'static str) -> Result<(u64, Vec<ProfileName>), Error> {
    let id = fields.u64(what)?;
    let count = fields.u16("number of profiles")?;
    check_limit("number of profiles", u64::from(count), MAX_PROFILE_NAMES as u64)?;
    let names =
        (0..count).map(|_| fields.array("profile name").map(ProfileName)).collect::<Result<_, _>>()?;
    fields.end(what)?;
    Ok((id, names))
}

fn read_nonce(fields: &mut Fields<'_>, what: &'static str) -> Result<u64, Error> {
    let nonce = fields.u64(what)?;
    fields.end(what)?;
    Ok(nonce)
}

fn write_text(out: &mut Vec<u8>, what: &'static str, text: &str, limit: usize) -> Result<(), Error> {
    check_limit(what, text.len() as u64, limit as u64)?;
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// CRC-32C of the parts in a row.
fn checksum(parts: &[&[u8]]) -> u32 {
    match parts {
        [whole] => crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, whole) as u32,
        parts => {
            let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
            parts.iter().for_each(|part| digest.update(part));
            digest.finalize() as u32
        }
    }
}

fn check_sum(what: &'static str, stored: u32, computed: u32) -> Result<(), Error> {
    if stored == computed { Ok(()) } else { Err(Error::Checksum { what, stored, computed }) }
}

fn check_limit(what: &'static str, value: u64, limit: u64) -> Result<(), Error> {
    if value > limit { Err(Error::LimitExceeded { what, value, limit }) } else { Ok(()) }
}

/// The bytes not yet read; every step checks the bounds.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes }
    }

    /// All that is not read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Error::Truncated {
            what,
            needed: count as u64,
            available: self.bytes.len() as u64,
        })?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, Error> {
        let count = self.u16(what)?;
        check_limit(what, u64::from(count), limit as u64)?;
        std::str::from_utf8(self.take(what, usize::from(count))?).map_err(|_| Error::Utf8 { what })
    }

    pub(crate) fn end(&self, what: &'static str) -> Result<(), Error> {
        match self.bytes.len() as u64 {
            0 => Ok(()),
            count => Err(Error::TrailingBytes { what, count }),
        }
    }
}
