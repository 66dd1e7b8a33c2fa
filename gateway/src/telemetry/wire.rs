//! Protocol buffers, as much of them as OTLP needs: a writer, and the envelope that both signals share. OTLP is stable: a
//! field's number never changes.

use bytes::Bytes;

/// A message that is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

/// A value of an attribute.
pub(super) enum Value<'a> {
    Text(&'a str),
    Texts(&'a [&'a str]),
    Int(u64),
    Double(f64),
    Bool(bool),
}

/// Longest text in an attribute or a name: what a client sends is not always short.
const LONGEST: usize = 256;

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    /// An integer of variable length, a bool or an enum.
    pub(super) fn int(&mut self, field: u32, n: u64) {
        self.tag(field, 0);
        self.varint(n);
    }

    pub(super) fn fixed64(&mut self, field: u32, n: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, n: u32) {
        self.tag(field, 5);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u32, n: f64) {
        self.fixed64(field, n.to_bits());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A text, cut where it is too long.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, &text.as_bytes()[..text.floor_char_boundary(LONGEST)]);
    }

    /// Numbers of eight bytes each, packed.
    pub(super) fn packed(&mut self, field: u32, numbers: impl ExactSizeIterator<Item = u64>) {
        self.tag(field, 2);
        self.varint(numbers.len() as u64 * 8);
        numbers.for_each(|n| self.0.extend_from_slice(&n.to_le_bytes()));
    }

    pub(super) fn nested(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A `KeyValue`.
    pub(super) fn attribute(&mut self, field: u32, key: &str, value: &Value<'_>) {
        self.nested(field, |m| {
            m.text(1, key);
            m.nested(2, |m| m.value(value));
        });
    }

    /// An `AnyValue`.
    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) => self.text(1, text),
            Value::Bool(yes) => self.int(2, u64::from(*yes)),
            Value::Int(n) => self.int(3, *n),
            Value::Double(n) => self.double(4, *n),
            Value::Texts(texts) => self.nested(5, |m| texts.iter().for_each(|t| m.nested(1, |m| m.text(1, t)))),
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Who sends: a `Resource`.
pub(super) fn resource() -> Message {
    let instance = format!("{:032x}", fastrand::u128(..));
    let mut resource = Message::default();
    for (key, value) in [("service.name", "trivium"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", &instance)] {
        resource.attribute(1, key, &Value::Text(value));
    }
    resource
}

/// An export of spans or of metrics: the two differ in nothing but the items, which are written as field 2 already.
pub(super) fn export(resource: &Message, items: &[u8]) -> Bytes {
    let mut export = Message(Vec::with_capacity(items.len() + 256));
    export.nested(1, |m| {
        m.bytes(1, &resource.0);
        m.nested(2, |m| {
            m.nested(1, |m| {
                m.text(1, "trivium");
                m.text(2, env!("CARGO_PKG_VERSION"));
            });
            m.0.extend_from_slice(items);
        });
    });
    export.0.into()
}
