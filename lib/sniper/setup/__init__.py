"""From a configuration to what the other rooms take: values, data sets, devices, logs."""
