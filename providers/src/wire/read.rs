//! How request types are read: strings that borrow, structs that keep what they do not know, and fields that may be a string
//! or a list.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A string that borrows from the body where it has no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str<'a>(pub Cow<'a, str>);

impl Deref for Str<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Str<'a> {
    fn from(text: &'a str) -> Self {
        Str(Cow::Borrowed(text))
    }
}

impl From<String> for Str<'_> {
    fn from(text: String) -> Self {
        Str(Cow::Owned(text))
    }
}

impl fmt::Display for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Str<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(v.to_owned()))
            }
        }
        d.deserialize_str(Borrow).map(Str)
    }
}

/// Fields that a struct does not know: key and value as they stood.
pub type Extra<'a> = Vec<(Str<'a>, &'a RawValue)>;

/// Declares a struct all of whose fields are optional (`null` counts as absent) and which keeps unknown fields in `extra`.
/// `serde(flatten)` cannot hold a `RawValue`; this can, and allocates nothing for fields that are known.
macro_rules! open {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $key:literal $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name<'a> {
            $($(#[$fdoc])* pub $field: Option<$ty>,)*
            /// Fields that are not known here, in their order.
            pub extra: $crate::wire::Extra<'a>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Fields<'a>(std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for Fields<'a> {
                    type Value = $name<'a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        let mut out = $name::default();
                        while let Some(key) = map.next_key::<$crate::wire::Str<'a>>()? {
                            match &*key {
                                $($key => out.$field = map.next_value()?,)*
                                _ => out.extra.push((key, map.next_value()?)),
                            }
                        }
                        Ok(out)
                    }
                }
                d.deserialize_map(Fields(std::marker::PhantomData))
            }
        }

        impl serde::Serialize for $name<'_> {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = s.serialize_map(None)?;
                $(if let Some(value) = &self.$field {
                    map.serialize_entry($key, value)?;
                })*
                for (key, value) in &self.extra {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    };
}
pub(crate) use open;

/// A string, or a list of `T`.
pub enum Either<'a, T> {
    /// A string.
    Text(Str<'a>),
    /// A list.
    List(Vec<T>),
}

/// Reads a field that may be a string or a list.
///
/// # Errors
/// When it is neither; the message says `expecting`.
pub fn text_or_list<'de: 'a, 'a, T: Deserialize<'de>, D: Deserializer<'de>>(d: D, expecting: &'static str) -> Result<Either<'a, T>, D::Error> {
    /// Borrows for `'a` and makes a `T`, holding neither.
    type Makes<'a, T> = std::marker::PhantomData<(&'a (), fn() -> T)>;
    struct Both<'a, T>(&'static str, Makes<'a, T>);
    impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Both<'a, T> {
        type Value = Either<'a, T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
            Ok(Either::Text(Str(Cow::Borrowed(v))))
        }
        fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
            Ok(Either::Text(Str(Cow::Owned(v.to_owned()))))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                list.push(item);
            }
            Ok(Either::List(list))
        }
    }
    d.deserialize_any(Both(expecting, std::marker::PhantomData))
}
