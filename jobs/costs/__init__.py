"""What runs cost: from their own records and a price per machine hour, and what happens when a budget is spent."""
