"""Configuration: the schema, yaml files, `--set` pairs, checks and recipes."""

from sniper.config.checks import parse_gpus, parse_lr_steps
from sniper.config.load import (
    config_of,
    describe_keys,
    dump_config,
    dump_values,
    load_config,
    overridden,
    plain,
    save_config,
    write_config,
)
from sniper.config.merge import check_is_no_base
from sniper.config.schema import SCHEMA
from sniper.config.schema_test import TEST_ENGINES, TEST_MODES
from sniper.config.yaml_files import find_recipe, recipe_names

__all__ = [
    "SCHEMA",
    "TEST_ENGINES",
    "TEST_MODES",
    "check_is_no_base",
    "config_of",
    "describe_keys",
    "dump_config",
    "dump_values",
    "find_recipe",
    "load_config",
    "overridden",
    "parse_gpus",
    "parse_lr_steps",
    "plain",
    "recipe_names",
    "save_config",
    "write_config",
]
