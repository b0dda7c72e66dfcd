//! JSON in which no object names a field twice. `serde_json` takes the last of them in silence; YAML refuses
//! them, and one of two hosts in a file is a mistake in either.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Longest field that is shown, in characters.
const MAX_SHOWN: usize = 80;

/// A value, each of whose objects has every field once.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Once).map(Self)
    }
}

struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(MAX_SHOWN).collect();
                return Err(A::Error::custom(format_args!("the field {key:?} stands twice in one object")));
            }
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_is_what_serde_json_makes_of_it() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"x","\u00e9\n",{}],"b":{"a":{"a":[]}}}"#;
        let Strict(value) = serde_json::from_str(text).unwrap_or(Strict(Value::Null));
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap_or_default());
        assert!(value.is_object());
    }

    #[test]
    fn a_field_that_stands_twice_is_said() {
        let said = |text: &str| serde_json::from_str::<Strict>(text).err().map(|error| error.to_string());
        assert_eq!(said(r#"[{"a":1},{"a":1}]"#), None);
        let why = said("{\"x\":\n{\"a\":1,\"b\":2,\"a\":1}}");
        assert_eq!(why.as_deref(), Some("the field \"a\" stands twice in one object at line 2 column 16"));
    }
}
