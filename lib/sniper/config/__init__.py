"""Configuration: the schema, yaml files, `--set` pairs, checks and recipes."""

from sniper.config.checks import parse_gpus, parse_lr_steps
from sniper.config.load import (
    config_of,
    describe_keys,
    dump_config,
    load_config,
    save_config,
    write_config,
)
from sniper.config.schema import SCHEMA
from sniper.config.schema_test import TEST_ENGINES, TEST_MODES
from sniper.config.yaml_files import find_recipe, recipe_names

__all__ = [
    "SCHEMA",
    "TEST_ENGINES",
    "TEST_MODES",
    "config_of",
    "describe_keys",
    "dump_config",
    "find_recipe",
    "load_config",
    "parse_gpus",
    "parse_lr_steps",
    "recipe_names",
    "save_config",
    "write_config",
]
