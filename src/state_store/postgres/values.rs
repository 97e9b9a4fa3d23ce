//! Values between the rules' types and the database's.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use wellspring_domain::ids::Hash32;
use wellspring_domain::ports::StoreError;

use super::faults::Fault;

/// A hash as the text of its 64 hex characters; empty when it is zero, as in receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub Hash32);

impl ToSql for Hex {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if self.0 != Hash32::default() {
            out.extend_from_slice(&self.0.hex());
        }
        Ok(IsNull::No)
    }

    fn accepts(wanted: &Type) -> bool {
        *wanted == Type::TEXT
    }

    to_sql_checked!();
}

/// A row's columns, with a mistake told by name instead of a panic: other programs write here, too.
pub struct Columns<'a>(pub &'a Row);

impl Columns<'_> {
    /// The column's value.
    pub fn get<'r, T: tokio_postgres::types::FromSql<'r>>(
        &'r self,
        name: &str,
    ) -> Result<T, Fault> {
        Ok(self.0.try_get(name)?)
    }

    /// A hash; zero when the text is empty.
    pub fn hash(&self, name: &str) -> Result<Hash32, Fault> {
        let text: Option<&str> = self.get(name)?;
        match text.unwrap_or_default() {
            "" => Ok(Hash32::default()),
            text => Hash32::from_hex(text.as_bytes()).ok_or_else(|| damaged(name, "a hash")),
        }
    }

    /// A number that is stored wider or signed.
    pub fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, Fault> {
        let column = self.0.columns().iter().find(|column| column.name() == name);
        let value = match column.map(|column| column.type_()) {
            Some(kind) if *kind == Type::INT4 => i64::from(self.get::<i32>(name)?),
            _ => self.get::<i64>(name)?,
        };
        T::try_from(value).map_err(|_| damaged(name, "a number in its range"))
    }
}

/// A stored value that cannot be what was written.
pub fn damaged(column: &str, expected: &str) -> Fault {
    Fault::Store(StoreError::Damaged {
        key: column.to_owned(),
        offset: 0,
        cause: format!("expected {expected}"),
    })
}

/// A text the database can hold: U+0000, which it cannot, is shown as U+2400.
pub fn storable(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{2400}").into(),
        false => text.into(),
    }
}
