//! The authors' YAML configuration, as words for the same options the command line has.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_yaml_ng::Value;

use musc::{Error, Result};

use crate::args::{DatasetArg, VisTypeArg};

/// What a YAML file says; every option may be absent.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Yaml {
    pub dataset_name: Option<DatasetArg>,
    pub data_path: Option<PathBuf>,
    pub class_name: Option<Vec<String>>,
    pub img_resize: Option<usize>,
    pub divide_num: Option<usize>,
    pub backbone_name: Option<String>,
    pub pretrained: Option<String>,
    pub batch_size: Option<usize>,
    pub feature_layers: Option<Vec<usize>>,
    pub r_list: Option<Vec<usize>>,
    pub device: Option<String>,
    pub output_dir: Option<PathBuf>,
    pub vis: Option<bool>,
    pub vis_type: Option<VisTypeArg>,
    pub save_excel: Option<bool>,
    /// Keys that mean nothing here, as `section.key`.
    pub unknown: Vec<String>,
}

impl Yaml {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of the file called `name`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self> {
        let whole: Value = serde_yaml_ng::from_str(text)
            .map_err(|reason| Error::invalid(format!("--config {name}"), reason, "a YAML file"))?;
        let mut yaml = Yaml::default();
        for (section, value) in entries(&whole, name, "")? {
            match (section.as_str(), value) {
                ("device", value) => {
                    yaml.device = Some(Entry { name, key: "device", value }.text()?);
                }
                ("datasets" | "models" | "testing", section_value) => {
                    for (key, value) in entries(section_value, name, &section)? {
                        let key = format!("{section}.{key}");
                        yaml.take(Entry { name, key: &key, value })?;
                    }
                }
                (other, _) => yaml.unknown.push(other.to_string()),
            }
        }
        Ok(yaml)
    }

    fn take(&mut self, entry: Entry<'_>) -> Result<()> {
        match entry.key {
            "datasets.dataset_name" => self.dataset_name = Some(entry.choice()?),
            "datasets.data_path" => self.data_path = Some(entry.text()?.into()),
            "datasets.class_name" => self.class_name = Some(entry.list(Entry::text)?),
            "datasets.img_resize" => self.img_resize = Some(entry.number()?),
            "datasets.divide_num" => self.divide_num = Some(entry.number()?),
            "models.backbone_name" => self.backbone_name = Some(entry.text()?),
            "models.pretrained" => self.pretrained = Some(entry.text()?),
            "models.batch_size" => self.batch_size = Some(entry.number()?),
            "models.feature_layers" => self.feature_layers = Some(entry.list(Entry::number)?),
            "models.r_list" => self.r_list = Some(entry.list(Entry::number)?),
            "testing.output_dir" => self.output_dir = Some(entry.text()?.into()),
            "testing.vis" => self.vis = Some(entry.truth()?),
            "testing.vis_type" => self.vis_type = Some(entry.choice()?),
            "testing.save_excel" => self.save_excel = Some(entry.truth()?),
            other => self.unknown.push(other.to_string()),
        }
        Ok(())
    }
}

/// The pairs of a mapping; nothing for an empty file or section.
fn entries<'a>(value: &'a Value, name: &str, key: &str) -> Result<Vec<(String, &'a Value)>> {
    let found = |found: &Value| {
        let what = if key.is_empty() {
            format!("--config {name}")
        } else {
            format!("--config {name}: {key}")
        };
        Error::invalid(what, describe(found), "`key: value` lines")
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Mapping(map) => map
            .iter()
            .map(|(key, value)| match key {
                Value::String(key) => Ok((key.clone(), value)),
                other => Err(found(other)),
            })
            .collect(),
        other => Err(found(other)),
    }
}

/// One value with its place in the file.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a str,
    key: &'a str,
    value: &'a Value,
}

impl Entry<'_> {
    fn wrong(&self, expected: impl Into<String>) -> Error {
        Error::invalid(
            format!("--config {}: {}", self.name, self.key),
            describe(self.value),
            expected,
        )
    }

    fn text(&self) -> Result<String> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) if self.key == "device" => Ok(number.to_string()),
            _ => Err(self.wrong("text (in quotes if it looks like a number)")),
        }
    }

    fn number(&self) -> Result<usize> {
        self.value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| self.wrong("a whole number from 0"))
    }

    fn truth(&self) -> Result<bool> {
        match self.value {
            Value::Bool(truth) => Ok(*truth),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.wrong("True or False")),
        }
    }

    fn choice<T: ValueEnum>(&self) -> Result<T> {
        let names: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|variant| variant.to_possible_value())
            .map(|value| value.get_name().to_string())
            .collect();
        let text = self.text()?;
        T::from_str(&text, false).map_err(|_| self.wrong(names.join(", ")))
    }

    fn list<T>(&self, one: impl Fn(&Self) -> Result<T>) -> Result<Vec<T>> {
        match self.value {
            Value::Sequence(values) => {
                values.iter().map(|value| one(&Entry { value, ..*self })).collect()
            }
            _ => Ok(vec![one(self)?]),
        }
    }
}

/// A value as it may be shown in a message.
fn describe(value: &Value) -> String {
    match serde_yaml_ng::to_string(value) {
        Ok(text) => text.trim_end().replace('\n', ", "),
        Err(_) => String::from("something that is no plain value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_layout_is_read() {
        let text = "
datasets:
  dataset_name: 'visa'  # a comment
  data_path: ./data/visa/
  class_name: 'ALL'
  img_resize: 518
  divide_num: 2
models:
  backbone_name: 'ViT-L-14-336'
  pretrained: 'openai'
  batch_size: 4
  feature_layers: [5, 11]
  r_list: 3
device: 0
testing:
  output_dir: 'output'
  vis: True
  vis_type: whole_norm
  save_excel: false
  colour: red
";
        let expected = Yaml {
            dataset_name: Some(DatasetArg::Visa),
            data_path: Some("./data/visa/".into()),
            class_name: Some(vec!["ALL".into()]),
            img_resize: Some(518),
            divide_num: Some(2),
            backbone_name: Some("ViT-L-14-336".into()),
            pretrained: Some("openai".into()),
            batch_size: Some(4),
            feature_layers: Some(vec![5, 11]),
            r_list: Some(vec![3]),
            device: Some("0".into()),
            output_dir: Some("output".into()),
            vis: Some(true),
            vis_type: Some(VisTypeArg::WholeNorm),
            save_excel: Some(false),
            unknown: vec!["testing.colour".into()],
        };
        assert_eq!(Yaml::parse(text, "musc.yaml").unwrap(), expected);
        assert_eq!(Yaml::parse("", "empty.yaml").unwrap(), Yaml::default());
        // A class of BTAD is text even without quotes.
        let btad = Yaml::parse("datasets:\n  class_name: [01, 02]", "btad.yaml").unwrap();
        assert_eq!(btad.class_name, Some(vec!["01".into(), "02".into()]));
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, key) in [
            ("models:\n  r_list: [1, x]", "models.r_list"),
            ("models:\n  batch_size: -1", "models.batch_size"),
            ("datasets:\n  dataset_name: mvtec", "datasets.dataset_name"),
            ("datasets:\n  class_name: 1", "datasets.class_name"),
            ("testing:\n  vis: 3", "testing.vis"),
            ("testing: 3", "testing"),
            ("- 1", "c.yaml"),
            ("a: [", "c.yaml"),
        ] {
            let message = Yaml::parse(text, "c.yaml").unwrap_err().to_string();
            assert!(message.contains(key), "{key} in {message}");
            assert!(message.contains("c.yaml"), "{message}");
        }
    }
}
