"""Planners: action sequences chosen by imagining them with a model, [b n] candidates at once."""
