"""Configuration: the schema, yaml files, `--set` pairs, checks and recipes."""

from sniper.config.checks import parse_gpus, parse_lr_steps
from sniper.config.describe import describe_keys
from sniper.config.load import config_of, dump_config, load_config, save_config
from sniper.config.recipes import find_recipe, recipe_names
from sniper.config.schema import SCHEMA

__all__ = [
    "SCHEMA",
    "config_of",
    "describe_keys",
    "dump_config",
    "find_recipe",
    "load_config",
    "parse_gpus",
    "parse_lr_steps",
    "recipe_names",
    "save_config",
]
