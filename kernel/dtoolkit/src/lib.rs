// Copyright 2025 Google LLC
//
// Licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// https://www.apache.org/licenses/LICENSE-2.0> or the MIT license
// <LICENSE-MIT or https://opensource.org/licenses/MIT>, at your
// option. This file may not be copied, modified, or distributed
// except according to those terms.

//! The part of `dtoolkit` that reads Flattened Device Tree (FDT) blobs in place,
//! without memory allocation, beginning at [`Fdt`](fdt::Fdt), and with the feature `write` the one
//! that makes and changes them (`model`).

#![cfg_attr(not(test), no_std)]
#![warn(missing_docs, rustdoc::missing_crate_level_docs)]
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod error;
pub mod fdt;
pub mod memreserve;
#[cfg(feature = "write")]
pub mod model;
pub mod standard;
mod util;
mod validate;
mod values;
use core::fmt::{self, Display, Formatter};
use core::ops::{BitOr, Shl};

use zerocopy::big_endian;

use crate::error::{PropertyError, StandardError};
pub use crate::values::{
    FdtStringListIterator, FromPropertyValue, PropEncodedArrayIterator, ToPropertyValue,
};

macro_rules! impl_property_methods {
    (get_value = |$self:ident| $get_value:expr) => {
        fn value_as<'v, T: crate::FromPropertyValue<'v>>(&$self) -> Result<T, crate::error::PropertyError> where Self: 'v {
            T::from_property_value($get_value)
        }

        fn as_prop_encoded_array<const N: usize>(
            &$self,
            fields_cells: [usize; N],
        ) -> Result<crate::values::PropEncodedArrayIterator<'a, N>, crate::error::PropertyError> {
            crate::values::PropEncodedArrayIterator::new($get_value, fields_cells)
        }
    };
}
use impl_property_methods;

/// A device tree node.
pub trait Node: Sized {
    /// The type used for properties of the node.
    type Property<'a>: Property + 'a
    where
        Self: 'a;

    /// The type used for child nodes.
    type Child<'a>: Node + 'a
    where
        Self: 'a;

    /// The type used for the properties iterator.
    type Properties<'a>: Iterator<Item = Self::Property<'a>> + 'a
    where
        Self: 'a;

    /// The type used for the children iterator.
    type Children<'a>: Iterator<Item = Self::Child<'a>> + 'a
    where
        Self: 'a;

    /// The type used for the name of the node.
    type Name<'a>: AsRef<str> + Copy + 'a
    where
        Self: 'a;

    /// Returns the name of this node.
    ///
    /// # Examples
    ///
    /// ```
    /// use dtoolkit::Node;
    /// use dtoolkit::fdt::Fdt;
    ///
    /// # let dtb = include_bytes!("../tests/dtb/test_children.dtb");
    /// let fdt = Fdt::new(dtb).unwrap();
    /// let root = fdt.root();
    /// let child = root.child("child1").unwrap();
    /// assert_eq!(child.name(), "child1");
    /// ```
    #[must_use]
    fn name(&self) -> Self::Name<'_>;

    /// Returns the name of this node without the unit address, if any.
    #[must_use]
    fn name_without_address(&self) -> Self::Name<'_>;

    /// Returns the property with the given name, if any.
    ///
    /// # Performance
    ///
    /// This default implementation iterates through all properties of the node.
    fn property(&self, name: &str) -> Option<Self::Property<'_>> {
        self.properties().find(|property| property.name() == name)
    }

    /// Returns an iterator over the properties of this node.
    ///
    /// # Examples
    ///
    /// ```
    /// use dtoolkit::fdt::Fdt;
    /// use dtoolkit::{Node, Property};
    ///
    /// # let dtb = include_bytes!("../tests/dtb/test_props.dtb");
    /// let fdt = Fdt::new(dtb).unwrap();
    /// let node = fdt.find_node("/test-props").unwrap();
    /// let mut props = node.properties();
    /// assert_eq!(props.next().unwrap().name(), "u32-prop");
    /// assert_eq!(props.next().unwrap().name(), "u64-prop");
    /// assert_eq!(props.next().unwrap().name(), "str-prop");
    /// ```
    fn properties(&self) -> Self::Properties<'_>;

    /// Returns a child node by its name.
    ///
    /// If the given name contains a _unit-address_ (the part after the `@`
    /// sign) then both the _node-name_ and _unit-address_ must match. If it
    /// doesn't have a _unit-address_, then nodes with any _unit-address_ or
    /// none will be allowed.
    ///
    /// For example, searching for `memory` as a child of `/` would match either
    /// `/memory` or `/memory@4000`, while `memory@4000` would match only the
    /// latter.
    fn child(&self, name: &str) -> Option<Self::Child<'_>> {
        let include_address = name.contains('@');
        self.children().find(|child| {
            if include_address {
                child.name().as_ref() == name
            } else {
                child.name_without_address().as_ref() == name
            }
        })
    }

    /// Returns an iterator over the children of this node.
    ///
    /// # Examples
    ///
    /// ```
    /// use dtoolkit::Node;
    /// use dtoolkit::fdt::Fdt;
    ///
    /// # let dtb = include_bytes!("../tests/dtb/test_children.dtb");
    /// let fdt = Fdt::new(dtb).unwrap();
    /// let root = fdt.root();
    /// let mut children = root.children();
    /// assert_eq!(children.next().unwrap().name(), "child1");
    /// assert_eq!(children.next().unwrap().name(), "child2@42");
    /// assert!(children.next().is_none());
    /// ```
    fn children(&self) -> Self::Children<'_>;
}

/// A property of a device tree node.
pub trait Property: Sized {
    /// The type used for the prop-encoded-array iterator.
    type PropEncodedArray<const N: usize>: Iterator<Item = [Self::CellsItem; N]>;

    /// The type used for the cells.
    type CellsItem: Copy + ToCellInt;

    /// Returns the name of this property.
    #[must_use]
    fn name(&self) -> &str;

    /// Returns the value of this property.
    #[must_use]
    fn value(&self) -> &[u8];

    /// Returns the value of this property as a given type.
    ///
    /// # Errors
    ///
    /// Returns an error if the value cannot be parsed or has invalid length.
    fn value_as<'a, T: FromPropertyValue<'a>>(&self) -> Result<T, PropertyError>
    where
        Self: 'a;

    /// Returns an iterator over the elements of the property interpreted as a
    /// `prop-encoded-array`.
    ///
    /// Each element of the array will have will have the same number of fields,
    /// where each field has the number of cells specified by the corresponding
    /// entry in `fields_cells`.
    ///
    /// # Errors
    ///
    /// Returns an error if the property's value's length can't be divided into
    /// a multiple of the given cells.
    fn as_prop_encoded_array<const N: usize>(
        &self,
        fields_cells: [usize; N],
    ) -> Result<Self::PropEncodedArray<N>, PropertyError>;
}

/// An integer value split into several big-endian u32 parts.
///
/// This is generally used in prop-encoded-array properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cells<'a>(pub(crate) &'a [big_endian::U32]);

/// Trait for converting cells to integers.
pub trait ToCellInt {
    /// Converts the value to the given integer type.
    ///
    /// # Errors
    ///
    /// Returns [`StandardError::TooManyCells`] if the value has too many cells
    /// to fit in the given type.
    fn to_int<T: Default + From<u32> + Shl<usize, Output = T> + BitOr<Output = T>>(
        self,
    ) -> Result<T, StandardError>;
}

impl ToCellInt for Cells<'_> {
    fn to_int<T: Default + From<u32> + Shl<usize, Output = T> + BitOr<Output = T>>(
        self,
    ) -> Result<T, StandardError> {
        if size_of::<T>() < self.0.len() * size_of::<u32>() {
            Err(StandardError::TooManyCells {
                cells: self.0.len(),
            })
        } else if let [size] = self.0 {
            Ok(size.get().into())
        } else {
            let mut value = Default::default();
            for cell in self.0 {
                value = value << 32 | cell.get().into();
            }
            Ok(value)
        }
    }
}

impl AsRef<[big_endian::U32]> for Cells<'_> {
    fn as_ref(&self) -> &[big_endian::U32] {
        self.0
    }
}

impl Display for Cells<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("0x")?;
        for part in self.0 {
            write!(f, "{part:08x}")?;
        }
        Ok(())
    }
}
